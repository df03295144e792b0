"""Identity per face: both backbones, and their paired difference.

(a) Similarity of the final image: large marks are the means of a face, small dots its samples
(prompts and seeds), faces in order of the baseline. One face says nothing about others, so there is
no interval within a row. (b) Difference in the same face, prompt and seed, swapped minus baseline:
dots are pairs, the line and band are the mean over faces and its interval. Pairs in which one of the
two has no face are left out and counted in the title.
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.cells import face_means
from analysis.compare import pair
from analysis.evidence import Evidence
from analysis.figures.marks import key, look
from analysis.figures.style import INK, canvas, panel
from analysis.quantities import run_name

EXPERIMENTS = ("main",)


def draw(evidence: Evidence) -> Figure:
    """Faces are rows of both panels."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones]
    ends = [evidence.endpoint(run) for run in runs]
    means = [face_means(end) for end in ends]
    order = np.argsort(np.nan_to_num(means[0].mean, nan=-2.0))[::-1]
    faces = means[0].faces[order]
    figure = canvas(1.1 + 0.16 * len(faces))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.35, 1])
    panel(left, "a", "cosine to the reference")
    for k, (run, end, mean) in enumerate(zip(runs, ends, means, strict=True)):
        rows = np.arange(len(faces)) + (k - 0.5) * 0.26
        dots(left, end, faces, rows, k)
        left.plot(
            mean.mean[order], rows, ls="none", marker=look(k).marker, color=look(k).colour,
            mec="white", mew=0.4, ms=5, label=run_name(run),
        )  # fmt: skip
    left.set_yticks(range(len(faces)), faces.tolist())
    left.set_ylim(len(faces) - 0.4, -0.6)
    left.set_xlabel("cosine")
    key(figure, left)
    difference(evidence, right, ends, faces)
    return figure


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
    axes.set_xlabel("swapped − baseline (cosine)")
