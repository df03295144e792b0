"""Seconds saved against similarity lost: the adapter in the first steps alone.

A step without the adapter does not run its network. Each point is a run of its own whose adapter is on
in so many first steps (labels); the square at the origin is the run with the adapter in all steps, the
paper's setting. Across: seconds an image less than that run, with an interval over pipeline calls. Up:
fall of the cosine to the reference, paired by face, prompt and noise, with an interval over faces; an
image without a face counts with `verdict.lost_face`. Open: the seconds that the adapter's network took in
those steps of the run with the adapter in all steps, which is what a window should save. Dashed:
the margin `verdict.transfer_margin`. Timings hold for this machine and batch size only.
"""

import numpy as np
from matplotlib.figure import Figure

from stepscope.analysis.causal.savings import fastest, savings
from stepscope.analysis.causal.words import of_backbones
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, key, look
from stepscope.analysis.figures.style import INK, QUIET, canvas, gap, panel
from stepscope.analysis.quantities import name
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("adapter_window",)


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, said)


def said(evidence: Evidence, backbone: str) -> str:
    """The fastest window whose loss stays within the margin, and what a step without the adapter saves."""
    found = savings(evidence, backbone)
    each = (
        f"by the time that the adapter's network takes, a step without it saves {1000 * found.adapter:.0f} "
        "ms an image"
    )
    if evidence.margins is None:
        return f"{each}."
    margin = evidence.margins.transfer_margin
    best = fastest(found, margin)
    if best is None:
        return f"{each}; no window surely loses at most {margin:g} of the cosine."
    seconds, lost = (
        f"{float(v['mean']):.2f} [{float(v['low']):.2f}, {float(v['high']):.2f}]"
        for v in (best.seconds, best.lost)
    )
    return (
        f"{each}; with the adapter in the first {best.end} of {best.steps} steps an image takes "
        f"{seconds} s less of {found.whole:.2f} s (by the network's time {found.expected(best):.2f} s) and "
        f"loses {lost} of the cosine, surely at most {margin:g}."
    )


def draw(evidence: Evidence) -> Figure:
    """A panel of each backbone."""
    figure = canvas(2.8)
    axes = figure.subplots(1, 2, sharey=True)
    for k, backbone in enumerate(evidence.backbones):
        one = axes[k]
        panel(one, "ab"[k], name(backbone))
        one.set_xlabel("seconds saved an image")
        try:
            found = savings(evidence, backbone)
        except StepscopeError as error:
            gap(one, str(error))
            continue
        seconds, lost = (
            np.array([[float(v[word]) for word in ("mean", "low", "high")] for v in values]).T
            for values in zip(*((w.seconds, w.lost) for w in found.windows), strict=True)
        )
        one.plot([0, *seconds[0]], [0, *lost[0]], color=look(0).colour, lw=0.7)
        one.plot([0], [0], "s", color=INK, ms=4, label="the whole run")
        expected = [found.expected(window) for window in found.windows]
        open_ = {"ls": ":", "lw": 0.8, "marker": "D", "mfc": "white", "ms": 3.6}
        one.plot(
            [0, *expected],
            [0, *lost[0]],
            color=QUIET,
            markevery=slice(1, None),
            **open_,
            label="by the network's own seconds",
        )
        bars(one, lost[0], list(seconds), look(0), across=True, label="measured")
        bars(one, seconds[0], list(lost), look(0))
        of_points = {"textcoords": "offset points", "fontsize": 7}
        whole = str(found.windows[0].steps)
        one.annotate(whole, (0.0, 0.0), (0, 6), ha="center", **of_points)
        for window, x, y in zip(found.windows, seconds[0], lost[0], strict=True):
            one.annotate(str(window.end), (x, y), (4, 4), **of_points)
        if evidence.margins is not None:
            margin = evidence.margins.transfer_margin
            one.axhline(margin, color=QUIET, ls="--", lw=0.7, label="margin")
        one.axhline(0, color="#999999", lw=0.6, zorder=0)
    axes[0].set_ylabel("cosine lost")
    key(figure, axes[0])
    return figure
