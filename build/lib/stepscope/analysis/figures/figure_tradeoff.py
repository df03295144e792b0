"""Latency against identity: one point for each backbone and number of steps.

Similarity of the final image, mean over faces, against seconds an image, mean over pipeline calls
of a call's wall time over its batch size, on the machine and in the batches named below; a run's
cold first call is left out where two others remain. Bars are intervals, over faces and over calls;
the seconds of a run of one call have none. Labels: number of steps. Timings hold for this machine
only. Lines: another person's reference, and other photos of the same person.
"""

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from stepscope.analysis.calls import average, seconds_an_image
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, key, look, plain
from stepscope.analysis.figures.readings import reference_lines
from stepscope.analysis.figures.style import canvas
from stepscope.analysis.lookup import setting
from stepscope.analysis.quantities import name

EXPERIMENTS = ("step_budget",)


def draw(evidence: Evidence) -> Figure:
    """One panel, latency on a logarithmic axis."""
    figure = canvas(2.8, 4.2)
    axes = figure.subplots()
    for k, backbone in enumerate(evidence.backbones):
        runs = sorted(
            evidence.some("step_budget", backbone=backbone), key=lambda r: setting(r, "steps")
        )
        points = [
            (
                average(seconds_an_image(run), level=evidence.level),
                evidence.average(evidence.endpoint(run)),
            )
            for run in runs
        ]
        x, y = ([float(p[i]["mean"]) for p in points] for i in (0, 1))
        axes.plot(x, y, color=look(k).colour, ls=look(k).line, lw=0.7)
        for i, across in ((0, True), (1, False)):
            ends = [[float(p[i][word]) for p in points] for word in ("low", "high")]
            label = None if across else name(backbone)
            place, middle = (y, x) if across else (x, y)
            bars(axes, place, [middle, *ends], look(k), across=across, label=label)
        for run, (a, b) in zip(runs, zip(x, y, strict=True), strict=True):
            axes.annotate(
                str(setting(run, "steps")),
                (a, b),
                (5, -8) if k else (-5, 5),
                textcoords="offset points",
                ha="left" if k else "right",
                color=look(k).colour,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=5,
            )
    axes.set_xscale("log")
    plain(axes.xaxis)
    axes.set(xlabel="seconds an image", ylabel="cosine to the reference")
    reference_lines(evidence, axes, evidence.some("step_budget", backbone=evidence.baseline)[0])
    key(figure, axes)
    return figure
