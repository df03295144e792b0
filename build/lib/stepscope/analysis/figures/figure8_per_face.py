"""Identity per face: both backbones, and their paired difference.

(a) Similarity of the final image: large marks are the means of a face, small dots its samples
(prompts and seeds). Faces are sorted by the mean of both backbones, because sorting by one of them
produces a trend in the differences by chance alone. Vertical lines: another person's reference, dotted,
and other photos of the same person, dashed. A single face has no interval. (b) Difference in the same
face, prompt and seed, swapped minus baseline: dots are pairs, line and band are the mean over faces and
its interval. Pairs in which one image has no face are left out and counted in the title.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stepscope.analysis.cells import FaceMeans, face_means
from stepscope.analysis.compare import pair
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import key, look
from stepscope.analysis.figures.readings import reference_lines
from stepscope.analysis.figures.style import INK, canvas, panel
from stepscope.analysis.quantities import run_name

EXPERIMENTS = ("main",)


def draw(evidence: Evidence) -> Figure:
    """Faces are rows of both panels."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones]
    ends = [evidence.endpoint(run) for run in runs]
    means = [face_means(end) for end in ends]
    faces = by_mean(means)
    figure = canvas(1.1 + 0.16 * len(faces))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.35, 1])
    panel(left, "a", "cosine to the reference")
    for k, (run, end, mean) in enumerate(zip(runs, ends, means, strict=True)):
        rows = np.arange(len(faces)) + (k - 0.5) * 0.26
        dots(left, end, faces, rows, k)
        middle = dict(zip(mean.faces.tolist(), mean.mean, strict=True))
        left.plot(
            [middle.get(face, np.nan) for face in faces.tolist()], rows, ls="none",
            marker=look(k).marker, color=look(k).colour, mec="white", mew=0.4, ms=5,
            label=run_name(run),
        )  # fmt: skip
    left.set_yticks(range(len(faces)), faces.tolist())
    left.set_ylim(len(faces) - 0.4, -0.6)
    left.set_xlabel("cosine")
    reference_lines(evidence, left, runs[0], across=True)
    key(figure, left)
    difference(evidence, right, ends, faces)
    return figure


def by_mean(means: Sequence[FaceMeans]) -> np.ndarray:
    """All faces, by falling mean over both runs; those that one of them never found last."""
    faces = np.unique(np.concatenate([mean.faces for mean in means]))
    each = np.full((len(means), len(faces)), np.nan)
    for row, mean in zip(each, means, strict=True):
        row[np.searchsorted(faces, mean.faces)] = mean.mean
    return faces[np.argsort(np.nan_to_num(each.mean(0), nan=-2.0))[::-1]]


def dots(axes: Axes, values: xr.DataArray, faces: np.ndarray, rows: np.ndarray, k: int) -> None:
    """Every sample as a small dot in the row of its face."""
    place = dict(zip(faces.tolist(), rows, strict=True))
    y = [place.get(face, np.nan) for face in values["face"].values.tolist()]
    axes.plot(
        values.values,
        y,
        ls="none",
        marker=".",
        ms=3.6,
        alpha=0.6,
        color=look(k).colour,
        mec="none",
    )


def difference(evidence: Evidence, axes: Axes, ends: list[xr.DataArray], faces: np.ndarray) -> None:
    """Paired differences, with the mean over faces and its interval."""
    found = evidence.effect(*ends)
    both = pair(*ends)
    change = both.changed.copy(data=both.changed.values - both.baseline.values)
    dots(axes, change, faces, np.arange(len(faces)), 2)
    axes.axvline(0, color="#999999", lw=0.6)
    axes.axvline(float(found["effect"]), color=INK, lw=1.0)
    axes.axvspan(float(found["low"]), float(found["high"]), color=INK, alpha=0.13, lw=0)
    lost = int(np.isnan(change.values).sum())
    panel(axes, "b", f"paired difference ({int(found['pairs'])} pairs, {lost} without face)")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("swapped − baseline (cosine)")
