"""What figures of identity share: the three curves and their null, chance and ceiling, share of the way."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis.evidence import IDENTITY, Evidence
from analysis.figures.marks import curve
from analysis.figures.style import LOOKS, QUIET, Look
from analysis.lookup import MissingEvidenceError
from analysis.windows import Against

NULL = "blur null"
READINGS = {
    **{
        label: (read, LOOKS[k])
        for (label, read), k in zip(IDENTITY.items(), (0, 1, 2), strict=True)
    },
    NULL: (lambda evidence, run: evidence.blur_null(run), Look("#8a8a8a", (0, (1, 1.2)), "")),  # pyright: ignore[reportArgumentType]
}
"""The curves of a run by their names, each with its look; the null last."""


def draw_readings(
    evidence: Evidence, axes: Axes, run: xr.Dataset, against: Against
) -> dict[str, xr.DataArray]:
    """Every curve of the run that was measured, against step or sigma; returns them.

    What is missing is said in the legend, once for each.
    """
    found = {}
    for label, (read, look) in READINGS.items():
        try:
            values = read(evidence, run)
        except MissingEvidenceError:
            axes.plot([], [], " ", label=f"{label}: not measured")
            continue
        found[label] = values
        x = values["sigma" if against == "sigma" else values.dims[1]].values
        curve(axes, x, evidence.average(values), look, label, faint=label == NULL)
    return found


def limits(evidence: Evidence, run: xr.Dataset) -> tuple[float, float]:
    """Chance and ceiling, means over faces; NaN where one is not known."""
    try:
        each = evidence.chance(run), evidence.ceiling(run)
    except MissingEvidenceError:
        return np.nan, np.nan
    low, high = (float(evidence.average(values)["mean"]) for values in each)
    return low, high


def bounds(
    evidence: Evidence, axes: Axes, run: xr.Dataset, *, across: bool = False, words: bool = True
) -> tuple[float, float]:
    """Lines at another person's similarity and at the same person's in another photo; returns both.

    across: similarity is on the x axis. NaN where a bound is not known, and then the axes say so.
    """
    ends = limits(evidence, run)
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
            f"{' and '.join(unknown)} not known", (0, 1), (2, -2), "axes fraction", "offset points",
            va="top", fontsize=5.5, color=QUIET,
        )  # fmt: skip
    return ends


def way_axis(
    axes: Axes, ends: tuple[float, float], side: Literal["right", "left"] = "right"
) -> None:
    """A second axis: the share of the way from chance to ceiling. None where one is not known."""
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
