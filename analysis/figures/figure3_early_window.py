"""Three different curves of identity, and a null, against steps and noise level.

*As predicted*: identity in the model's estimate, the decoded x0 at each step, which that evaluation
receives from the adapter. *Carried by the latents*: x0 from one evaluation with the adapter off, at the
same recorded x_t. *Committed*: the final image, with the adapter off from that step to the end. *Blur
null*: the run's final image, whose identity is constant, blurred to the sharpness of x0. (a) Final images
of whole runs with different step counts: a different question. (b, c) The baseline and (d, e) the swapped
backbone along one run; x0 is aligned by the final image's keypoints. Shaded: pointwise interval; outlined:
simultaneous band. Horizontal lines: another person's reference, and other photos of the same person. Of an
adapter that is given a picture and no face, the curves are likeness of x0 to that picture, by DINOv2 and
CLIP, against step and log-SNR, and windows count from the first value. (f to h) The end of the early
effective window, our definition, by each estimator and for each curve: an arrow marks an interval that
extends beyond the run, a cross an estimator without a position.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.budgets import budgets
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.likeness import LOOK_OF, estimators, final, has_no_face
from stepscope.analysis.figures.marks import curve, look, steps
from stepscope.analysis.figures.readings import (
    READINGS,
    draw_readings,
    reference_lines,
    share_axis,
)
from stepscope.analysis.figures.style import canvas, gap, panel
from stepscope.analysis.figures.window_ends import window_ends
from stepscope.analysis.quantities import name, run_name
from stepscope.analysis.windows import Against
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
    for row, backbone in enumerate(evidence.backbones):
        for column in range(2):
            one = axes[row, column + 1]
            letter = "bcde"[2 * row + column]
            panel(one, letter, "")
            try:
                run = evidence.one("trajectory", backbone=backbone)
            except StepscopeError as error:
                gap(one, str(error))
                continue
            panel(one, letter, run_name(run))
            x: Against = ("step", "log_snr" if has_no_face(run) else "sigma")[column]
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
    what = "likeness" if labels and LOOK_OF.keys() >= {*labels} else "identity"
    axes[1, 0].legend(handles, labels, loc="center", title=f"{what}, (b) to (e)")
    axes[0, 1].set_ylabel("cosine to the reference")
    axes[1, 1].set_ylabel("cosine to the reference")
    axes[2, 2].tick_params(labelleft=False)
    return figure


def trajectory_axis(axes: Axes, count: int, against: Against) -> None:
    """Limits and label of the x axis of one run, from noise to image."""
    axes.set_ylim(LOWEST, HIGHEST)
    if against == "log_snr":
        axes.set_xlabel("log-SNR")
    elif against == "sigma":
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
        curves = {name(b): budgets(evidence, runs, reader(runs)) for b, runs in every.items()}
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
    of_pictures = any(reader(runs) for runs in every.values())
    rows = estimators(evidence.share) if of_pictures else ()
    window_ends(evidence, below, drawn, "step", rows)


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
    if curves.keys() <= LOOK_OF.keys():  # of a picture
        of_pictures = {label: (v, LOOK_OF[label]) for label, v in curves.items()}
        window_ends(evidence, axes, of_pictures, against, estimators(evidence.share))
        return
    drawn = {label: (v, READINGS[label][1]) for label, v in curves.items()}
    window_ends(evidence, axes, drawn, against)


def reader(runs: Sequence[xr.Dataset]) -> Callable[[xr.Dataset], xr.DataArray] | None:
    """What is read of final images: likeness to a picture of runs without a face, else None."""
    return final if all("final_similarity" not in run for run in runs) else None
