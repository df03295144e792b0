"""Where curves saturate, drawn as a row of marks for each estimator: shared by figures of early windows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars
from stepscope.analysis.figures.readings import NULL
from stepscope.analysis.figures.style import QUIET, Look
from stepscope.analysis.quantities import short
from stepscope.analysis.saturation import Estimator
from stepscope.analysis.saturation import panel as estimators
from stepscope.analysis.windows import Against, window
from stepscope.hooks.errors import StepscopeError


def window_ends(
    evidence: Evidence,
    axes: Axes,
    curves: Mapping[str, tuple[xr.DataArray | None, Look]],
    against: Against,
    rows: Sequence[Estimator] = (),
) -> None:
    """The window's end of every curve, one row for each estimator; the usual ones if none is named.

    None in place of a curve is one of which no window is told: it has a cross.
    """
    rows = rows or estimators(evidence.share)
    for k, (label, (values, drawn)) in enumerate(curves.items()):
        offset = (k - (len(curves) - 1) / 2) * 0.8 / max(len(curves), 2)
        for row, estimator in enumerate(rows):
            where = None
            if values is not None:
                with suppress(
                    StepscopeError
                ):  # too few faces: no position without interval is drawn
                    where = window(values, estimator, evidence.window_interval, against=against)
            shown = Look(drawn.colour, drawn.line, "|") if label == NULL else drawn
            position_mark(axes, where, row + offset, shown)
    axes.set_yticks(range(len(rows)), [two_lines(short(e)) for e in rows], fontsize=6)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.grid(visible=False)
    for row in range(1, len(rows)):
        axes.axhline(row - 0.5, color="#dddddd", lw=0.4)


def two_lines(text: str) -> str:
    """An estimator's name, split into two lines."""
    for sign in (", ", " of a ", " of "):
        if sign in text:
            first, last = text.split(sign)
            return f"{first}{sign.rstrip()}\n{last}"
    return text


def position_mark(axes: Axes, found: xr.Dataset | None, y: float, drawn: Look) -> None:
    """A position and its interval, clipped to the panel; a cross where there is no position."""
    left, right = axes.get_xlim()
    if found is None or not np.isfinite(found["position"]):
        axes.plot(
            [0.985], [y], "x", color=drawn.colour if found is not None else QUIET, ms=2.5,
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
        return
    ends = np.clip([float(found["low"]), float(found["high"])], min(left, right), max(left, right))
    bars(axes, y, [found["position"].item(), *ends], drawn, across=True, capsize=1.2, ms=2.8)
    for end, bound in zip(ends, (found["low"], found["high"]), strict=True):
        if np.isinf(bound):
            axes.plot([end], [y], ">", color=drawn.colour, ms=3, clip_on=False)
