"""The table and the grids of README.md, from logs/quality.json: `python -m pocket.report`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stepscope.pocket.manifest import lines, total
from stepscope.pocket.training import LOGS

README = Path(__file__).parent / "README.md"
FIGURES = Path(__file__).parent / "figures"
BEGIN, END = "<!-- quality -->", "<!-- /quality -->"
ROWS = (
    "renders",
    "renders through the VAE",
    "dev-28",
    "dev-28 + adapter",
    "dev-28 at guidance 1 + adapter",
    "schnell-4",
    "schnell-4 + adapter",
)
PEOPLE_SHOWN, GAP = 8, 2


def grid(images: Tensor, columns: int, path: Path) -> None:
    """Write images (n, 3, h, w) in [0, 1] as one PNG, row by row, on white."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, 3), 255, np.uint8)
    for i, image in enumerate((images.float().cpu() * 255).round().byte().permute(0, 2, 3, 1)):
        y, x = (i // columns) * (h + GAP), (i % columns) * (w + GAP)
        sheet[y : y + h, x : x + w] = image.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True)


def faces_by_prompts(
    folder: Path, references: Tensor, pictures: Mapping[str, Tensor], prompts: int
) -> None:
    """A sheet per backbone: a row per person, the reference and then one picture per prompt."""
    shown = min(PEOPLE_SHOWN, len(references))
    for name, file in (("dev-28 + adapter", "dev"), ("schnell-4 + adapter", "schnell")):
        by_person = pictures[name].unflatten(0, (-1, prompts))[:shown]
        sheet = torch.cat([references[:shown, None], by_person], 1).flatten(0, 1)
        grid(sheet, 1 + prompts, folder / f"faces_{file}.png")


def write(readme: Path = README, logs: Path = LOGS) -> None:
    """Put the table between README's two marks."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(logs)}\n{END}{after}")


def table(logs: Path = LOGS) -> str:
    """Everything measured, as Markdown."""
    told = json.loads((logs / "quality.json").read_text())
    parts = [f"{told['cells'].capitalize()}; 95 % intervals by resampling people."]
    parts += [_pictures(told["pictures"]), _obeyed(told["pictures"]), _networks(told)]
    for name, told_by in (("speed.json", _speed), ("by_eye.json", _by_eye)):
        if (logs / name).exists():
            parts.append(told_by(json.loads((logs / name).read_text())))
    if (logs / "adapters_quality.json").exists():
        parts.append(_adapters(json.loads((logs / "adapters_quality.json").read_text())))
    return "\n\n".join([*parts, f"All weights together: {total(lines()) / 1e6:.1f} MB."])


def way(cosine: float, ceiling: float, floor: float) -> float:
    """How far a cosine is from the different-person floor to the same-person ceiling, 0 to 1."""
    return (cosine - floor) / (ceiling - floor)


def _pictures(pictures: Mapping[str, Any]) -> str:
    ceiling, floor = (pictures["renders"][key][0] for key in ("cosine", "floor"))
    body = []
    for name in (n for n in ROWS if n in pictures):
        row = pictures[name]
        share = [f"{100 * way(c, ceiling, floor):.0f}" for c in row["cosine"]]
        pairwise, spread = row["pairwise"]
        body.append(
            [
                name,
                _interval(row["cosine"], 3),
                f"{share[0]} % [{share[1]}, {share[2]}]",
                _percent(row["found"]),
                _percent(row["broken"]),
                f"{pairwise:.3f} ± {spread:.3f}",
            ]
        )
    heads = ["", "judge's cosine", "of the way", "face found"]
    heads += ["broken (read-out)", "pairwise"]
    return _markdown(heads, body)


def _obeyed(pictures: Mapping[str, Any]) -> str:
    names = list(pictures["renders"]["obeyed"])
    body = [
        [row, *(_percent(pictures[row]["obeyed"][n]) for n in names)]
        for row in ROWS
        if row in pictures
    ]
    return _markdown(["prompt obeyed", *names], body)


def _networks(told: Mapping[str, Any]) -> str:
    body = [
        [
            name,
            f"{100 * row['eer']:.2f} % ({row['missed']} of {row['same']} same, "
            f"{row['confused']} of {row['different']} different)",
            f"{row['ceiling']:.3f} ± {row['ceiling_sd']:.3f}",
            f"{row['floor']:.3f} ± {row['floor_sd']:.3f}",
        ]
        for name, row in told["recognisers"].items()
    ]
    detector = told["detector"]
    falls = sorted(told["sensitivity"].items(), key=lambda pair: pair[1])
    return "\n\n".join(
        [
            _markdown(["recogniser", "equal-error rate", "same person", "different person"], body),
            f"The detector finds {100 * detector['found']:.2f} % of renders; its keypoints are "
            f"{detector['median']:.2f} pixels off (median).",
            "The judge's cosine falls, when one identity number moves by half its range, by: "
            + ", ".join(f"{name} {fall:.3f}" for name, fall in falls)
            + ".",
        ]
    )


def _speed(told: Mapping[str, Any]) -> str:
    body = [[name, *(f"{seconds:.2f} s" for seconds in row)] for name, row in told["rows"].items()]
    return _markdown([f"{told['cores']} CPU cores", "one image", "each of four"], body)


def _by_eye(told: Mapping[str, Any]) -> str:
    body = [[name, f"{len(places)} of 100"] for name, places in told["broken"].items()]
    parts = [_markdown([f"by eye ({told['by']})", "broken faces"], body)]
    if "area_under_curve" in told:
        body = [
            [name, _interval(area["all"], 2), _interval(area["posters"], 2)]
            for name, area in told["area_under_curve"].items()
        ]
        heads = [
            "area under the curve against those readers (.5 is chance)",
            "all",
            "posters alone",
        ]
        parts.append(_markdown(heads, body))
    if "left_over" in told:
        body = [
            [name, f"{row['mean']:.3f}", *(f"{q:.3f}" for q in row["quartiles"])]
            + [f"{100 * row['amiss']:.0f} %"]
            for name, row in told["left_over"].items()
        ]
        heads = ["structure that the nearest repainting lacks", "mean", "lower quartile", "median"]
        heads += ["upper quartile", "above 98 % of decoded renders"]
        parts.append(_markdown(heads, body))
        parts.append(f"The broken ones' mean is {told['left_over_of_broken']:.3f}.")
    return "\n\n".join(parts)


def _adapters(told: Mapping[str, Any]) -> str:
    """Each adapter on its base and, frozen, on the few-step model."""
    body = []
    for name, row in told.items():
        for where in ("base", "few_step"):
            found = row[where]
            share = [f"{100 * v:.0f}" for v in found["of_the_way"]]
            body.append(
                [
                    f"`{name}`" if where == "base" else "",
                    f"{found['backbone']}, {found['steps']} steps",
                    _interval(found["floor"], 2),
                    _interval(found["cosine"], 2),
                    f"{share[0]} % [{share[1]}, {share[2]}]",
                    f"{100 * found['judged']:.0f} %",
                ]
            )
    heads = ["adapter", "on", "judge's cosine without", "with it", "of the way", "judged"]
    counts = sorted({row["references"] for row in told.values()})
    said = (
        f"The other adapters, frozen, on {' or '.join(map(str, counts))} references never trained on, each "
        "under another prompt: from the cosine without the adapter to that of another render of the same "
        "face, look or hat; 95 % intervals by resampling references. None has seen the few-step model."
    )
    return said + "\n\n" + _markdown(heads, body)


def _percent(interval: Sequence[float]) -> str:
    mean, low, high = (100 * v for v in interval)
    return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"


def _interval(interval: Sequence[float], digits: int) -> str:
    mean, low, high = (f"{v:.{digits}f}" for v in interval)
    return f"{mean} [{low}, {high}]"


def _markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


if __name__ == "__main__":
    write()
