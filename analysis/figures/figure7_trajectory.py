"""The conceptual trajectory, fitted to the measured one: identity first, detail later.

Dots: measured means over faces along the run, scaled so that the first step is 0 and the last lies
on the curve. Curves: 1 - exp(-s / tau), s the step, with tau from the saturating fit to each mean
(the position at which it has made half its way, over ln 2); bands: the interval of tau. Where the
fit finds no saturation within the run there is no curve, and the panel says so. The shape of the
curve is an assumption of the concept, not a finding; how the dots leave it is a finding.
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.evidence import Evidence
from analysis.figures.figure4_streams import sharpness
from analysis.figures.marks import legend, look, run_name, steps
from analysis.figures.style import QUIET, Look, canvas, gap, panel
from analysis.saturation import ExponentialApproach
from analysis.windows import window
from hooks.errors import StepscopeError

EXPERIMENTS = ("trajectory",)
HALF = ExponentialApproach(share=0.5, origin="first")


def draw(evidence: Evidence) -> Figure:
    """A panel for each backbone."""
    figure = canvas(2.5)
    axes = figure.subplots(1, 2, sharey=True)
    for one, letter, backbone in zip(axes, "ab", evidence.backbones, strict=True):
        run = evidence.one("trajectory", backbone=backbone)
        panel(one, letter, run_name(run))
        one.set(ylim=(-0.2, 1.5))
        steps(one, run.sizes["step"])
        quantities = (("identity", evidence.identity), ("sharpness of the face", sharpness))
        for k, (label, quantity) in enumerate(quantities):
            try:
                concept(evidence, one, quantity(run), look(2 * k), label, row=k)
            except StepscopeError as error:
                gap(one, str(error))
        legend(one, loc="lower right")
    axes[0].set_ylabel("share of the way to the plateau")
    return figure


def concept(
    evidence: Evidence, axes: Axes, values: xr.DataArray, drawn: Look, label: str, *, row: int
) -> None:
    """Measured means and the fitted curve of one quantity."""
    mean = evidence.average(values)
    step = values["step"].values.astype(float)
    found = window(values, HALF, evidence.window_interval, against="step")
    first, last = (mean["mean"].values[i] for i in (0, -1))
    tau = float(found["position"] - step[0]) / np.log(2)
    whole = 1 - np.exp(-(step[-1] - step[0]) / tau) if tau > 0 else 1.0
    scale = whole / (last - first)
    low, high = ((mean[word].values - first) * scale for word in ("low", "high"))
    middle = (mean["mean"].values - first) * scale
    arms = np.abs([middle - low, high - middle])
    axes.errorbar(
        step, middle, arms, ls="none", marker=drawn.marker, ms=2.6, elinewidth=0.7,
        color=drawn.colour, label=label,
    )  # fmt: skip
    if not tau > 0:
        why = found["reason"].item() or "the first step is already half way"
        text = f"{label}: {why.split(':')[0]}"
        axes.text(0.02, 0.97 - 0.08 * row, text, color=QUIET, va="top", transform=axes.transAxes)
        return
    fine = np.linspace(step[0], step[-1], 200)
    axes.plot(fine, 1 - np.exp(-(fine - step[0]) / tau), color=drawn.colour, ls=drawn.line)
    ends = [(float(found[word]) - step[0]) / np.log(2) for word in ("low", "high")]
    with np.errstate(divide="ignore", invalid="ignore"):
        edges = [1 - np.exp(-(fine - step[0]) / max(end, 1e-9)) for end in ends]
    axes.fill_between(fine, *edges, color=drawn.colour, alpha=0.18, lw=0)
