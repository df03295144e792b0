"""The same face, prompt and seed under both backbones, with the similarity under each image.

First column: the reference face, aligned, as the adapter saw it. Then for each prompt the swapped
backbone beside the baseline, from the same initial noise. Numbers: cosine similarity to the
reference under the judge, "no face" where none was found. The first faces, prompts and seed of the
grid are shown, in its order: nothing was selected.
"""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import cosine, picture, wrapped
from stepscope.analysis.figures.style import WIDTH, canvas, frames
from stepscope.analysis.quantities import run_name

EXPERIMENTS = ("main",)
MOST_FACES, MOST_PROMPTS = 6, 3
MARGIN, GAP, LINE, HEAD = 0.2, 0.05, 0.19, 0.5
"""Inches: left of the pictures, between them, under each, above all."""


def draw(evidence: Evidence) -> Figure:
    """Rows are faces, columns pairs of images."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones[::-1]]
    faces, prompts = (
        unique(runs[0][word])[:most]
        for word, most in (("face", MOST_FACES), ("prompt", MOST_PROMPTS))
    )
    pairs = len(prompts)
    side = (WIDTH - MARGIN - GAP * (3 * pairs + 1)) / (1 + 2 * pairs)
    lefts = [MARGIN]
    for _ in prompts:
        lefts += [lefts[-1] + side + 2 * GAP, lefts[-1] + 2 * side + 3 * GAP]
    tops = [HEAD + i * (side + LINE) for i in range(len(faces))]
    figure = canvas(tops[-1] + side + LINE)
    axes = frames(figure, tops, lefts, side)
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
        left = axes[0, 1 + 2 * i]
        left.annotate(
            wrapped(prompt, 34), (0, 1), (0, 14), "axes fraction", "offset points", va="bottom"
        )
        for run, panel in zip(runs, axes[0, 1 + 2 * i : 3 + 2 * i], strict=True):
            panel.set_title(run_name(run), fontsize=5.5, pad=3)
    return figure


def unique(values: xr.DataArray) -> list[str]:
    """Distinct values in order of appearance."""
    return list(dict.fromkeys(values.values.tolist()))


def cell(run: xr.Dataset, face: str, prompt: str) -> xr.Dataset:
    """The first seed's sample of a face and a prompt."""
    hit = (run["face"].values == face) & (run["prompt"].values == prompt)
    return run.isel(sample=int(np.flatnonzero(hit)[0]))
