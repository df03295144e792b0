"""Weak adapter: identity along the run without adapter, with a weak one and with the full one.

(a, b) Similarity of the decoded x0 (aligned by the final image's keypoints) under both backbones, for each
factor alpha of the adapter; alpha = 0 is the same model without it; lines: another person's reference,
and the same person's other photos. It is identity as predicted (figure 3). (c) Lift
of the final image, full minus the smaller alpha in the same face, prompt and seed, paired, with
intervals.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.drift import lift
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, curve, key, look, steps
from stepscope.analysis.figures.readings import reference_lines
from stepscope.analysis.figures.style import canvas, gap, panel
from stepscope.analysis.lookup import setting
from stepscope.analysis.quantities import name, run_name
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("weak_adapter",)


def draw(evidence: Evidence) -> Figure:
    """Two panels of curves, and the lift."""
    figure = canvas(2.2)
    axes = figure.subplots(1, 3, width_ratios=[1.3, 0.9, 0.8])
    for k, backbone in enumerate(evidence.backbones):
        runs = sorted(
            evidence.some("weak_adapter", backbone=backbone),
            key=lambda r: -setting(r, "adapter.scale"),
        )
        panel(axes[k], "ab"[k], run_name(runs[0]))
        steps(axes[k], runs[0].sizes["step"])
        try:
            for i, run in enumerate(runs):
                label = f"α = {setting(run, 'adapter.scale'):g}"
                values = evidence.identity(run)
                curve(axes[k], values["step"].values, evidence.average(values), look(i), label)
        except StepscopeError as error:
            gap(axes[k], str(error))
        reference_lines(evidence, axes[k], runs[0], words=k == 0)
        lifts(evidence, axes[2], runs, k)
    axes[0].set_ylabel("cosine to the reference")
    axes[1].sharey(axes[0])
    axes[1].tick_params(labelleft=False)
    # Curves fill panel a from its floor to its ceiling: its legend stands above them.
    key(figure, axes[0], "left")
    panel(axes[2], "c", "lift of the full adapter")
    axes[2].axhline(0, color="#999999", lw=0.6)
    key(figure, axes[2])
    axes[2].set(xlabel="over α =", ylabel="cosine")
    return figure


def lifts(evidence: Evidence, axes: Axes, runs: list, k: int) -> None:
    """Full (the first run) minus each smaller alpha."""
    full = evidence.endpoint(runs[0])
    weak = [evidence.endpoint(run) for run in runs[1:]]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [lift(one, full, evidence.interval(one, full)) for one in weak]
    values = [[float(f[word]) for f in found] for word in ("effect", "low", "high")]
    places = np.arange(len(weak)) + (k - 0.5) * 0.2
    bars(axes, places, values, look(k), label=name(runs[0].attrs["backbone"]))
    axes.set_xticks(range(len(weak)), [f"{setting(run, 'adapter.scale'):g}" for run in runs[1:]])
    axes.set_xlim(-0.6, len(weak) - 0.4)
