"""Images at the same steps: as predicted, carried by the latents, and committed.

The first face, prompt and seed of the grid (not selected by result), for both backbones: *as predicted*,
the decoded estimate x0 at the step; *carried by the latents*, x0 with the adapter off for that one
evaluation; *committed*, the final image with the adapter off from that step to the end. Above each
column: step and sigma. Below each frame: cosine to the reference under the judge, or "no face"; x0 is
aligned by the final image's keypoints, final images by their own.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.figure2_grid import cell, unique
from stepscope.analysis.figures.marks import cosine, picture
from stepscope.analysis.figures.style import QUIET, WIDTH, canvas
from stepscope.analysis.figures.style import frames as place
from stepscope.analysis.lookup import MissingEvidenceError, measured
from stepscope.analysis.quantities import run_name
from stepscope.probes.usage import says

EXPERIMENTS = ("trajectory",)
FRAMES = 9
GAP, LINE, HEAD, LEFT = 0.03, 0.17, 0.3, 1.3
"""Inches: between pictures, below each, above each backbone, left of all."""


class Strip(NamedTuple):
    """A row: its name, the variable of its images and their axis, and their cosines (sample, axis)."""

    label: str
    images: str
    axis: str
    values: Callable[[Evidence, xr.Dataset], xr.DataArray]


STRIPS = (
    Strip("as\npredicted", "decoded", "step", lambda e, run: e.identity(run)),
    Strip("carried by\nthe latents", "decoded_carried", "step", lambda e, run: e.carried(run)),
    Strip("committed", "decoded_committed", "off_from", lambda e, run: e.committed(run)),
)


def draw(evidence: Evidence) -> Figure:
    """Three rows for each backbone; the reference on the left."""
    runs = [evidence.one("trajectory", backbone=b) for b in evidence.backbones]
    side = (WIDTH - LEFT - GAP * FRAMES) / FRAMES
    lefts = [0.02, *(LEFT + i * (side + GAP) for i in range(FRAMES))]
    block = HEAD + len(STRIPS) * (side + LINE)
    tops = [
        k * block + HEAD + i * (side + LINE) for k in range(len(runs)) for i in range(len(STRIPS))
    ]
    figure = canvas(tops[-1] + side + LINE)
    axes = place(figure, tops, lefts, side)
    for k, run in enumerate(runs):
        rows = axes[k * len(STRIPS) : (k + 1) * len(STRIPS)]
        one = cell(run, unique(run["face"])[0], unique(run["prompt"])[0])
        steps = shared_steps(run, FRAMES)
        for strip, row in zip(STRIPS, rows, strict=True):
            row[0].axis("off")
            row[1].set_ylabel(strip.label, fontsize=6, rotation=0, ha="right", va="center")
            draw_strip(evidence, row[1:], run, one, strip, steps)
        for panel, step in zip(rows[0][1:], steps, strict=False):
            sigma = float(run["sigma"][step])
            panel.set_title(f"{step} · σ {sigma:.2f}", fontsize=5.5, pad=2, loc="center")
        rows[0][1].annotate(
            run_name(run), (0, 1), (0, 12), "axes fraction", "offset points", fontsize=7, weight="bold"
        )  # fmt: skip
        if k == 0:
            rows[0][0].axis("on")
            picture(rows[0][0], one["face_crop"].values, "reference", quiet=True)
    return figure


def draw_strip(
    evidence: Evidence,
    row: np.ndarray,
    run: xr.Dataset,
    one: xr.Dataset,
    strip: Strip,
    steps: list[int],
) -> None:
    """The frames of one row at these steps; a note where they were not measured."""
    try:
        images = measured(run, strip.images).sel(sample=one["sample"])
        values = strip.values(evidence, run).sel(sample=one["sample"])
    except (MissingEvidenceError, KeyError):
        for axes in row:
            axes.axis("off")
        row[0].text(
            0, 0.5, f"not measured: {says('reread')}", fontsize=6, style="italic", color=QUIET,
            transform=row[0].transAxes,
        )  # fmt: skip
        row[0].axis("on")
        picture(row[0], None)
        row[0].set_facecolor("none")
        return
    at = values[values.dims[-1]].values.tolist()
    for axes, step in zip(row, steps, strict=False):
        if step not in at:
            axes.axis("off")
            continue
        frame = images.isel({strip.axis: at.index(step)})
        picture(axes, frame.values, cosine(float(values.values[at.index(step)])))
    for axes in row[len(steps) :]:
        axes.axis("off")


def shared_steps(run: xr.Dataset, places: int) -> list[int]:
    """At most `places` steps that every row has: those of `off_from`, or all where there is none.

    They include the first and the last; early steps are denser.
    """
    count = run.sizes["step"]
    known = [k for k in run["off_from"].values.tolist() if k < count] if "off_from" in run else []
    steps = known if len(known) > 1 else list(range(count))
    if len(steps) <= places:
        return steps
    power = 1.0 if known else 1.5
    spread = (np.linspace(0, 1, places) ** power * (len(steps) - 1)).round().astype(int)
    return [steps[i] for i in np.unique(spread)]
