"""Shared parts of identity figures: three curves, the blur null, chance and ceiling, and their axis."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from stepscope.analysis.evidence import IDENTITY, Evidence
from stepscope.analysis.figures.likeness import draw_along, has_no_face
from stepscope.analysis.figures.marks import curve
from stepscope.analysis.figures.style import LOOKS, QUIET, Look
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.windows import Against

NULL = "blur null"
READINGS = {
    **{
        label: (read, LOOKS[k])
        for (label, read), k in zip(IDENTITY.items(), (0, 1, 2), strict=True)
    },
    NULL: (lambda evidence, run: evidence.blur_null(run), Look("#8a8a8a", (0, (1, 1.2)), "")),  # pyright: ignore[reportArgumentType]
}
"""The identity curves of a run by name, each with its look; the blur null is last."""


def draw_readings(
    evidence: Evidence, axes: Axes, run: xr.Dataset, against: Against
) -> dict[str, xr.DataArray]:
    """Draw the run's identity curves against step or sigma; returns them, (sample, point), by name.

    The legend names the curves that were not measured. Of a run that was measured by likeness to a picture
    and has no face, those curves are drawn instead.
    """
    if has_no_face(run):
        return draw_along(evidence, axes, run, against)
    curves = {}
    for label, (read, look) in READINGS.items():
        try:
            values = read(evidence, run)
        except MissingEvidenceError:
            axes.plot([], [], " ", label=f"{label}: not measured")
            continue
        curves[label] = values
        x = values["sigma" if against == "sigma" else values.dims[1]].values
        curve(axes, x, evidence.average(values), look, label, faint=label == NULL)
    return curves


def chance_and_ceiling(evidence: Evidence, run: xr.Dataset) -> tuple[float, float]:
    """Chance and ceiling as cosines, means over faces; NaN where unknown."""
    try:
        both = evidence.chance(run), evidence.ceiling(run)
    except MissingEvidenceError:
        return np.nan, np.nan
    low, high = (float(evidence.average(values)["mean"]) for values in both)
    return low, high


def reference_lines(
    evidence: Evidence, axes: Axes, run: xr.Dataset, *, across: bool = False, words: bool = True
) -> tuple[float, float]:
    """Lines at chance (another person) and ceiling (same person, other photo); returns both cosines.

    across: similarity is on the x axis. words: label the lines. Unknown ones are NaN; a label says so.
    """
    ends = chance_and_ceiling(evidence, run)
    texts = ("another person", "same person, other photo")
    for value, text, style in zip(ends, texts, (":", "--"), strict=True):
        if not np.isfinite(value):
            continue
        line = axes.axvline if across else axes.axhline
        line(value, color=QUIET, ls=style, lw=0.7, zorder=1)
        if words and not across:
            axes.annotate(
                text, (1, value), (-2, 1.5), ("axes fraction", "data"), "offset points",
                ha="right", va="bottom", fontsize=5.5, color=QUIET,
            )  # fmt: skip
    unknown = [w for w, v in zip(("chance", "ceiling"), ends, strict=True) if not np.isfinite(v)]
    if unknown and words:
        axes.annotate(
            f"{' and '.join(unknown)} unknown", (0, 1), (2, -2), "axes fraction", "offset points",
            va="top", fontsize=5.5, color=QUIET,
        )  # fmt: skip
    return ends


def share_axis(
    axes: Axes, ends: tuple[float, float], side: Literal["right", "left"] = "right"
) -> None:
    """A second y axis: similarity in percent of the way from chance to ceiling; none where one is unknown.

    ends: chance and ceiling, as cosines.
    """
    low, high = ends
    if not np.isfinite([low, high]).all():
        return

    def share(cosine: Any) -> Any:
        return 100 * (cosine - low) / (high - low)

    def back(percent: Any) -> Any:
        return low + percent / 100 * (high - low)

    second = axes.secondary_yaxis(side, functions=(share, back))
    second.set_ylabel("% of the way to the ceiling")
    second.tick_params(labelsize=6)
