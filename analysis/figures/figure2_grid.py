"""The same face, prompt and seed under both backbones, with the similarity under each image.

First column: the reference face, aligned, as the adapter saw it. Then for each prompt the swapped
backbone beside the baseline, from the same initial noise. Numbers: cosine similarity to the
reference under the judge, "no face" where none was found. The first faces, prompts and seed of the
grid are shown, in its order: nothing was selected.
"""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analysis.evidence import Evidence
from analysis.figures.marks import cosine, picture, run_name, wrapped
from analysis.figures.style import WIDTH, canvas

EXPERIMENTS = ("main",)
MOST_FACES, MOST_PROMPTS = 6, 3


def draw(evidence: Evidence) -> Figure:
    """Rows are faces, columns pairs of images."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones[::-1]]
    faces, prompts = (
        unique(runs[0][word])[:most]
        for word, most in (("face", MOST_FACES), ("prompt", MOST_PROMPTS))
    )
    columns = 1 + 2 * len(prompts)
    side = WIDTH / columns
    figure = canvas((side + 0.08) * len(faces) + 0.5)
    axes = figure.subplots(len(faces), columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.0, hspace=0.0)  # pyright: ignore
    for row, face in zip(axes, faces, strict=True):
        crop = (
            cell(runs[0], face, prompts[0])["face_crop"].values if "face_crop" in runs[0] else None
        )
        picture(row[0], crop, "reference", quiet=True)
        row[0].set_ylabel(face)
        for i, prompt in enumerate(prompts):
            for run, panel in zip(runs, row[1 + 2 * i : 3 + 2 * i], strict=True):
                one = cell(run, face, prompt)
                value = evidence.endpoint(run).sel(sample=one["sample"]).item()
                picture(panel, one["image"].values, cosine(value))
    for i, prompt in enumerate(prompts):
        for k, run in enumerate(runs):
            title = f"{wrapped(prompt, 22)}\n" if k == 0 else ""
            axes[0, 1 + 2 * i + k].set_title(
                title + run_name(run).replace(", ", "\n"), fontsize=6, loc="left"
            )
    return figure


def unique(values: xr.DataArray) -> list[str]:
    """Distinct values in order of appearance."""
    return list(dict.fromkeys(values.values.tolist()))


def cell(run: xr.Dataset, face: str, prompt: str) -> xr.Dataset:
    """The first seed's sample of a face and a prompt."""
    hit = (run["face"].values == face) & (run["prompt"].values == prompt)
    return run.isel(sample=int(np.flatnonzero(hit)[0]))
