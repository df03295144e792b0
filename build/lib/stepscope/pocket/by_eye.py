"""Do the measures of wholeness see what readers of the grids saw? `python -m pocket.by_eye`.

logs/by_eye.json names the broken faces of figures/whole_*.png by their place, 0 to 99, row by row. Here
each measure's area under the curve is put beside them: the chance that it ranks a face that was called
broken above one that was not, among all and among posters alone, where nearly all broken ones are.
What the world can paint of every face (repainting.py) is looked for too, of as many renders that went
through the autoencoder for comparison; figures/repainted.png shows some. Half an hour on two
CPU cores.
"""

import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stepscope.pocket import album, folders, report, shipped
from stepscope.pocket.cells import SEED, asked_of_nobody
from stepscope.pocket.process import MODELS, device, prepare
from stepscope.pocket.repainting import repainted, unlike
from stepscope.pocket.training import LOGS
from stepscope.pocket.wholeness import area_under_curve
from stepscope.pocket.world import (
    ATTRIBUTES,
    SIZE,
    render,
    sample_identities,
    sample_nuisance,
)

COLUMNS = 10
# Of decoded renders, so many lie above the level that counts as amiss.
ALARMS = 0.02
RESAMPLES, BOUNDS = 2000, (0.025, 0.975)


def pictures(name: str) -> Tensor:
    """The faces of a grid that report.py wrote: (100, 3, 128, 128) in [0, 1]."""
    sheet = np.asarray(Image.open(report.FIGURES / f"whole_{name}.png"))
    step = SIZE + report.GAP
    cells = [
        sheet[y * step : y * step + SIZE, x * step : x * step + SIZE]
        for y in range(COLUMNS)
        for x in range(COLUMNS)
    ]
    return torch.from_numpy(np.stack(cells)).permute(0, 3, 1, 2).float().to(device()) / 255


@torch.no_grad()
def decoded_renders(asked: Tensor) -> Tensor:
    """Strangers under these prompts, through the autoencoder: (n, 3, 128, 128) in [0, 1]."""
    generator = torch.Generator(device()).manual_seed(SEED + 6)
    people = sample_identities(len(asked), SEED + 6, device())
    images, _ = render(people, asked, sample_nuisance(len(asked), generator, device()))
    vae = folders.load_vae(MODELS)
    return album.decode(vae, album.encode(vae, images))


def area(scores: Tensor, broken: Tensor) -> list[float]:
    """The area under the curve, and 95 % of it by resampling places.

    scores, broken (grid, place): what stands in one place has one prompt and one noise in all grids.
    """

    def of(places: Tensor) -> float:
        seen, said = broken[:, places], scores[:, places]
        return area_under_curve(said[~seen], said[seen]) if seen.any() else torch.nan

    generator = torch.Generator().manual_seed(SEED)
    n = scores.shape[1]
    drawn = [of(torch.randint(n, (n,), generator=generator)) for _ in range(RESAMPLES)]
    return [round(float(v), 3) for v in (of(torch.arange(n)), *np.nanquantile(drawn, BOUNDS))]


def left_over(scores: Tensor, usual: Tensor) -> dict[str, float | list[float]]:
    """How `unlike` spreads over a grid, and the share that counts as amiss."""
    quartiles = scores.quantile(torch.tensor([0.25, 0.5, 0.75], device=scores.device))
    amiss = (scores > usual.quantile(1 - ALARMS)).float().mean()
    return {
        "mean": round(scores.mean().item(), 4),
        "quartiles": [round(q, 4) for q in quartiles.tolist()],
        "amiss": round(amiss.item(), 3),
    }


def compared(faces: Tensor, repaintings: Tensor, broken: Tensor, posters: Tensor) -> Tensor:
    """Up to ten broken faces over their repaintings, then as many whole posters likewise."""
    rows = []
    for some in (broken, ~broken & posters):
        chosen = some.nonzero()[:COLUMNS, 0]
        blank = faces.new_ones(COLUMNS - len(chosen), *faces.shape[1:])
        rows += [faces[chosen], blank, repaintings[chosen], blank]
    return torch.cat(rows)


@torch.no_grad()
def main() -> None:
    prepare()
    path = LOGS / "by_eye.json"
    told = json.loads(path.read_text())
    readout, asked = shipped.load_wholeness(MODELS), asked_of_nobody()
    poster = asked[:, list(ATTRIBUTES).index("style")] != 0
    renders = decoded_renders(asked)
    usual = unlike(renders, asked, repainted(renders, asked))

    grids = {name: pictures(name) for name in told["broken"]}
    found = {name: repainted(faces, asked) for name, faces in grids.items()}
    unlikeness = {name: unlike(grids[name], asked, found[name]) for name in grids}
    scores = {
        "repainting": torch.stack(list(unlikeness.values())),
        "read-out": torch.stack([readout(f).flatten(1).amax(1) for f in grids.values()]),
    }
    broken = torch.zeros(len(grids), len(asked), dtype=torch.bool, device=device())
    for row, places in zip(broken, told["broken"].values(), strict=True):
        row[places] = True

    told["area_under_curve"] = {
        name: {"all": area(row, broken), "posters": area(row[:, poster], broken[:, poster])}
        for name, row in scores.items()
    }
    told["left_over"] = {
        name: left_over(row, usual)
        for name, row in {"renders through the VAE": usual, **unlikeness}.items()
    }
    told["left_over_of_broken"] = round(scores["repainting"][broken].mean().item(), 4)
    path.write_text(json.dumps(told, indent=1) + "\n")
    sheet = compared(
        torch.cat(list(grids.values())),
        torch.cat([f.images for f in found.values()]),
        broken.flatten(),
        poster.repeat(len(grids)),
    )
    report.grid(sheet, COLUMNS, report.FIGURES / "repainted.png")
    report.write()


if __name__ == "__main__":
    main()
