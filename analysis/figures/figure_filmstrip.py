"""The decoded estimate x0 along the run, with its similarity to the reference under each frame.

For each of the first faces of the grid (first prompt, first seed; nothing was selected) the
reference, frames of the baseline and all frames of the swapped backbone, from the same initial
noise. Over each frame its step and sigma; under it the cosine under the judge, with the final
image's keypoints held fixed, or "no face".
"""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analysis.evidence import Evidence, measured
from analysis.figures.figure2_grid import cell, unique
from analysis.figures.marks import cosine, picture
from analysis.figures.style import WIDTH, canvas
from analysis.figures.style import frames as place
from analysis.quantities import run_name

EXPERIMENTS = ("trajectory",)
FACES, FRAMES = 2, 9
GAP, LINE, HEAD = 0.03, 0.2, 0.16
"""Inches: between the pictures, under and above each."""


def draw(evidence: Evidence) -> Figure:
    """Two rows a face."""
    runs = [evidence.one("trajectory", backbone=b) for b in evidence.backbones]
    faces = unique(runs[0]["face"])[:FACES]
    prompt = unique(runs[0]["prompt"])[0]
    side = (WIDTH - 0.45 - GAP * FRAMES) / (1 + FRAMES)
    lefts = [0.02, *(0.4 + side + GAP + i * (side + GAP) for i in range(FRAMES))]
    tops = [HEAD + i * (side + HEAD + LINE) for i in range(2 * len(faces))]
    figure = canvas(tops[-1] + side + LINE)
    axes = place(figure, tops, lefts, side)
    for i, face in enumerate(faces):
        for k, run in enumerate(runs):
            row = axes[2 * i + k]
            one = cell(run, face, prompt)
            if k == 0:
                picture(row[0], one["face_crop"].values, "reference", quiet=True)
                row[0].set_title(face, fontsize=6, pad=2)
            else:
                row[0].axis("off")
            row[1].set_ylabel(run_name(run).replace(", ", "\n"), fontsize=6)
            frames(evidence, row[1:], run, one)
    return figure


def frames(evidence: Evidence, row: np.ndarray, run: xr.Dataset, one: xr.Dataset) -> None:
    """A run's frames, spread evenly over its steps where they do not all fit, more densely early."""
    steps = shown(run.sizes["step"], len(row))
    values = evidence.identity(run).sel(sample=one["sample"]).values
    decoded = measured(run, "decoded").sel(sample=one["sample"])
    for axes, step in zip(row, steps, strict=False):
        picture(axes, decoded.isel(step=step).values, cosine(values[step]))
        axes.set_title(
            f"{step} · σ {float(run['sigma'][step]):.2f}", fontsize=5.5, pad=2, loc="center"
        )
    for axes in row[len(steps) :]:
        axes.axis("off")


def shown(steps: int, places: int) -> list[int]:
    """All steps, or as many as fit, first and last among them, spaced quadratically."""
    if steps <= places:
        return list(range(steps))
    spread = (np.linspace(0, 1, places) ** 1.5 * (steps - 1)).round().astype(int)
    return np.unique(spread).tolist()
