"""Where identity enters: similarity against the number of steps of whole runs, and along one run.

(a) Budget: endpoints of runs with different numbers of steps. (b, c) Trajectory: the decoded
estimate x0 at each step of one run, read with the final image's keypoints held fixed, against step
and against sigma. The two modes are different questions and are never mixed. Shaded: the early
effective window, our definition, from the start to where the mean curve reaches the named share of
its plateau, with the interval of that position. Below: the same position by each estimator; an
arrow at the edge is an interval that reaches beyond the run, a cross one that the estimator refuses.
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.evidence import Evidence, budgets
from analysis.figures.marks import bars, curve, legend, look, window_mark
from analysis.figures.style import QUIET, Look, canvas, gap, panel
from analysis.quantities import name, run_name, short
from analysis.saturation import panel as estimators
from analysis.windows import Against, window
from hooks.errors import StepscopeError

EXPERIMENTS = ("step_budget", "trajectory")


def draw(evidence: Evidence) -> Figure:
    """Curves above, windows by every estimator below."""
    figure = canvas(4.1)
    axes = figure.subplots(2, 3, height_ratios=[1.75, 1], sharex="col")
    modes: tuple[tuple[str, str, Against], ...] = (
        ("budget: whole runs", "number of steps of a run", "step"),
        ("trajectory", "step of one run", "step"),
        ("trajectory", "noise level σ", "sigma"),
    )
    for k, (title, label, against) in enumerate(modes):
        panel(axes[0, k], "abc"[k], title)
        try:
            found = curves(evidence, budget=k == 0)
        except StepscopeError as error:
            gap(axes[0, k], str(error))
            gap(axes[1, k], "")
            continue
        column(evidence, axes[:, k], found, against)
        axes[1, k].set_xlabel(label)
        if k:
            axes[0, k].sharey(axes[0, 1])
            axes[0, k].tick_params(labelleft=k == 1)
            axes[1, k].tick_params(labelleft=False)
    axes[0, 0].set_ylabel("cosine to the reference")
    legend(axes[0, 0], loc="lower right")
    legend(axes[0, 1], loc="lower right")
    return figure


def curves(evidence: Evidence, *, budget: bool) -> dict[str, xr.DataArray]:
    """By the name in the legend: endpoints of whole runs, or trajectories."""
    if budget:
        runs = {b: evidence.all("step_budget", backbone=b) for b in evidence.backbones}
        return {name(b): budgets(evidence, each) for b, each in runs.items()}
    runs = [evidence.one("trajectory", backbone=b) for b in evidence.backbones]
    return {run_name(run): evidence.identity(run) for run in runs}


def column(
    evidence: Evidence, axes: np.ndarray, found: dict[str, xr.DataArray], against: Against
) -> None:
    """One mode against one coordinate."""
    dim = "budget" if "budget" in next(iter(found.values())).dims else "step"
    for k, (label, values) in enumerate(found.items()):
        x = values["sigma" if against == "sigma" else dim].values
        curve(axes[0], x, evidence.average(values), look(k), label)
    if dim == "budget":
        points = np.unique(np.concatenate([v["budget"].values for v in found.values()]))
        axes[0].set_xscale("log", base=2)
        axes[0].set_xticks(points, [str(p) for p in points], minor=False)
        axes[0].set_xticks([], minor=True)
        axes[0].set_xlim(points[0] / 1.15, points[-1] * 1.15)
    elif against == "sigma":
        axes[0].set_xlim(1.02, 0.0)
    else:
        axes[0].set_xlim(-1, max(len(values["step"]) for values in found.values()))
    for k, values in enumerate(found.values()):
        estimates(evidence, axes, values, against, look(k), (k - 0.5) * 0.3)


def estimates(
    evidence: Evidence,
    axes: np.ndarray,
    values: xr.DataArray,
    against: Against,
    drawn: Look,
    offset: float,
) -> None:
    """The position by every estimator; the first one's is the window that is shaded above."""
    panel_ = estimators(evidence.share)
    for row, estimator in enumerate(panel_):
        try:
            found = window(values, estimator, evidence.window_interval, against=against)
        except StepscopeError:  # a single face: a position without interval is not drawn
            found = None
        if found is not None and row == 0:
            window_mark(axes[0], found, drawn, sigma=against == "sigma")
        position_mark(axes[1], found, row + offset, drawn)
    axes[1].set_yticks(range(len(panel_)), [short(e) for e in panel_])
    axes[1].set_ylim(len(panel_) - 0.4, -0.6)
    axes[1].grid(visible=False)


def position_mark(axes: Axes, found: xr.Dataset | None, y: float, drawn: Look) -> None:
    """A position and its interval, cut at the panel's edges; a cross where there is none."""
    left, right = axes.get_xlim()
    if found is None or not np.isfinite(found["position"]):
        axes.plot([0.97], [y], "x", color=QUIET, ms=3, transform=axes.get_yaxis_transform())
        return
    ends = np.clip([float(found["low"]), float(found["high"])], min(left, right), max(left, right))
    bars(axes, y, [found["position"].item(), *ends], drawn, across=True)
    for end, bound in zip(ends, (found["low"], found["high"]), strict=True):
        if np.isinf(bound):
            axes.plot([end], [y], ">", color=drawn.colour, ms=3.5, clip_on=False)
