"""Do the measures of wholeness see what readers of the grids saw? `python -m pocket.by_eye`.

logs/by_eye.json names the broken faces of figures/whole_*.png by their place, 0 to 99, row by row. Here
each measure's area under the curve is put beside them: the chance that it ranks a face that was called
broken above one that was not, among all and among posters alone, where nearly all broken ones are.
What the world can paint of every face (repainting.py) is looked for too, of as many renders that went
through the autoencoder for comparison; figures/repainted.png shows some. A quarter of an hour on two
CPU cores.
"""

import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pocket import album, folders, report, shipped
from pocket.cells import SEED, asked_of_nobody
from pocket.process import MODELS, device, prepare
from pocket.repainting import Repainting, repainted, unlike
from pocket.training import LOGS
from pocket.wholeness import area_under_curve
from pocket.world import (
    ATTRIBUTES,
    SIZE,
    render,
    sample_identities,
    sample_nuisance,
)

COLUMNS = 10
# Of decoded renders, so many lie above the level that counts as amiss.
ALARMS = 0.02
RESAMPLES = 2000


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
    found = [of(torch.arange(n)), *np.nanquantile(drawn, (0.025, 0.975))]
    return [round(float(v), 3) for v in found]


def compared(faces: Tensor, found: Repainting, broken: Tensor, posters: Tensor) -> Tensor:
    """Up to ten broken faces over their repaintings, then as many whole posters likewise."""
    rows = []
    for some in (broken, ~broken & posters):
        chosen = some.nonzero()[:COLUMNS, 0]
        blank = torch.ones(COLUMNS - len(chosen), *faces.shape[1:], device=faces.device)
        rows += [faces[chosen], blank, found.images[chosen], blank]
    return torch.cat(rows)


def main() -> None:
    prepare()
    path = LOGS / "by_eye.json"
    told = json.loads(path.read_text())
    readout, asked = shipped.load_wholeness(MODELS), asked_of_nobody()
    renders = decoded_renders(asked)
    usual = unlike(renders, asked, repainted(renders, asked))
    level = usual.quantile(1 - ALARMS)
    left_over = {"renders through the VAE": usual}
    broken, faults, shown = [], [], []
    for name, places in told["broken"].items():
        faces = pictures(name)
        seen = torch.zeros(len(faces), dtype=torch.bool, device=device())
        seen[places] = True
        with torch.no_grad():
            faults.append(readout(faces).flatten(1).amax(1))
        found = repainted(faces, asked)
        left_over[name] = unlike(faces, asked, found)
        broken.append(seen)
        shown.append((faces, found))
    where = torch.cat(broken)
    poster = asked[:, list(ATTRIBUTES).index("style")] != 0
    unlikeness = torch.cat([left_over[name] for name in told["broken"]])
    measures = {
        "repainting": unlikeness.view(len(broken), -1).cpu(),
        "read-out": torch.stack(faults).cpu(),
    }
    seen, some = torch.stack(broken).cpu(), poster.cpu()
    told["area_under_curve"] = {
        name: {"all": area(scores, seen), "posters": area(scores[:, some], seen[:, some])}
        for name, scores in measures.items()
    }
    told["left_over"] = {
        name: {
            "mean": round(float(scores.mean()), 4),
            "quartiles": [round(float(scores.quantile(q)), 4) for q in (0.25, 0.5, 0.75)],
            "amiss": round(float((scores > level).float().mean()), 3),
        }
        for name, scores in left_over.items()
    }
    told["left_over_of_broken"] = round(float(unlikeness[where].mean()), 4)
    path.write_text(json.dumps(told, indent=1) + "\n")
    faces = torch.cat([f for f, _ in shown])
    together = Repainting(
        *(torch.cat(c) for c in zip(*(vars(r).values() for _, r in shown), strict=True))
    )
    sheet = compared(faces, together, where, poster.repeat(len(broken)))
    report.grid(sheet, COLUMNS, report.FIGURES / "repainted.png")
    report.write()


if __name__ == "__main__":
    main()
