"""Three different curves of identity, and a null, against steps and noise level.

*As predicted*: identity in the model's estimate, the decoded x0 at each step, which that evaluation
receives from the adapter. *Carried by the latents*: x0 from one evaluation with the adapter off, at the
same recorded x_t. *Committed*: the final image, with the adapter off from that step to the end. *Blur
null*: the run's final image, whose identity is constant, blurred to the sharpness of x0. (a) Final images
of whole runs with different step counts: a different question. (b, c) The baseline and (d, e) the swapped
backbone along one run; x0 is aligned by the final image's keypoints. Shaded: pointwise interval;
outlined: simultaneous band. Horizontal lines: another person's reference, and other photos of the same
person. (f to h) The end of the early effective window, our definition, by each estimator and for each
curve: an arrow marks an interval that extends beyond the run, a cross an estimator without a position.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.budgets import budgets
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, curve, look, steps
from stepscope.analysis.figures.readings import (
    NULL,
    READINGS,
    draw_readings,
    reference_lines,
    share_axis,
)
from stepscope.analysis.figures.style import QUIET, Look, canvas, gap, panel
from stepscope.analysis.quantities import name, run_name, short
from stepscope.analysis.saturation import panel as estimators
from stepscope.analysis.windows import Against, window
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("step_budget", "trajectory")
LOWEST, HIGHEST = -0.2, 1.08
"""Limits of the cosine axes."""


def draw(evidence: Evidence) -> Figure:
    """Whole runs on the left, the two backbones' curves beside them, windows below."""
    figure = canvas(6.0)
    axes = figure.subplots(3, 3, height_ratios=[1.5, 1.5, 1.25])
    budget(evidence, axes[0, 0], axes[2, 0])
    axes[1, 0].axis("off")
    against: tuple[Against, Against] = ("step", "sigma")
    for row, backbone in enumerate(evidence.backbones):
        for column, x in enumerate(against):
            one = axes[row, column + 1]
            letter = "bcde"[2 * row + column]
            panel(one, letter, "")
            try:
                run = evidence.one("trajectory", backbone=backbone)
            except StepscopeError as error:
                gap(one, str(error))
                continue
            panel(one, letter, run_name(run))
            curves = draw_readings(evidence, one, run, x)
            ends = reference_lines(evidence, one, run, words=column == 0)
            trajectory_axis(one, run.sizes["step"], x)
            if column == 1:
                share_axis(one, ends)
                one.tick_params(labelleft=False)
            if row == 0:
                positions(evidence, axes[2, column + 1], one, curves, x)
                panel(axes[2, column + 1], "gh"[column], f"window ends, {name(backbone)}")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    axes[1, 0].legend(handles, labels, loc="center", title="identity, (b) to (e)")
    axes[0, 1].set_ylabel("cosine to the reference")
    axes[1, 1].set_ylabel("cosine to the reference")
    axes[2, 2].tick_params(labelleft=False)
    return figure


def trajectory_axis(axes: Axes, count: int, against: Against) -> None:
    """Limits and label of the x axis of one run, from noise to image."""
    axes.set_ylim(LOWEST, HIGHEST)
    if against == "sigma":
        axes.set_xlim(1.03, -0.03)
        axes.set_xlabel("noise level σ")
    else:
        steps(axes, count)
        axes.set_xlim(-0.03 * count, 1.03 * count)
        axes.set_xlabel("steps with the adapter before")


def budget(evidence: Evidence, above: Axes, below: Axes) -> None:
    """Final similarity of whole runs against their step count, and the windows."""
    panel(above, "a", "whole runs")
    panel(below, "f", "window ends, whole runs")
    try:
        every = {b: evidence.some("step_budget", backbone=b) for b in evidence.backbones}
        curves = {name(b): budgets(evidence, runs) for b, runs in every.items()}
    except StepscopeError as error:
        gap(above, str(error))
        gap(below, "")
        return
    points = np.unique(np.concatenate([v["budget"].values for v in curves.values()]))
    above.set_ylim(LOWEST, HIGHEST)
    for axes in (above, below):
        axes.set_xscale("log", base=2)
        axes.set_xticks(points, [str(p) for p in points], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlim(points[0] / 1.15, points[-1] * 1.15)
        axes.set_xlabel("number of steps of a run")
    for k, (label, values) in enumerate(curves.items()):
        curve(above, values["budget"].values, evidence.average(values), look(3 + k), label)
    reference_lines(evidence, above, every[evidence.baseline][0], words=False)
    above.set_ylabel("cosine to the reference")
    above.legend(loc="lower right")
    drawn = {label: (v, look(3 + k)) for k, (label, v) in enumerate(curves.items())}
    window_ends(evidence, below, drawn, "step")


def positions(
    evidence: Evidence,
    axes: Axes,
    above: Axes,
    curves: Mapping[str, xr.DataArray],
    against: Against,
) -> None:
    """The windows of one run's curves, on the same x axis."""
    axes.set_xlim(above.get_xlim())
    axes.set_xlabel(above.get_xlabel())
    drawn = {label: (v, READINGS[label][1]) for label, v in curves.items()}
    window_ends(evidence, axes, drawn, against)


def window_ends(
    evidence: Evidence,
    axes: Axes,
    curves: Mapping[str, tuple[xr.DataArray, Look]],
    against: Against,
) -> None:
    """The window's end of every curve, one row for each estimator."""
    rows = estimators(evidence.share)
    for k, (label, (values, drawn)) in enumerate(curves.items()):
        offset = (k - (len(curves) - 1) / 2) * 0.8 / max(len(curves), 2)
        for row, estimator in enumerate(rows):
            try:
                where = window(values, estimator, evidence.window_interval, against=against)
            except StepscopeError:  # too few faces: a position without interval is not drawn
                where = None
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
