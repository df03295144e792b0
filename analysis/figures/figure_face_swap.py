"""Face swap: from a step on the adapter is given another person's face; who is in the final image?

Cosine of the final image to the first person's reference and to the second's, against sigma at the step
from which the adapter is given the second, with the same noise. Dotted: the same with another photo of the
first person in place of the second, which should change nothing. At the left, both are those of the
second person's own run, at the right of the first person's. Bands: intervals over faces. Vertical line:
sigma at which both similarities are equal, with its interval over faces.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.causal.effects import judge_of, study_of
from stepscope.analysis.causal.swaps import Swapped, crossing, swapped
from stepscope.analysis.causal.words import face_swap, of_backbones
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import curve, key, look
from stepscope.analysis.figures.style import INK, canvas, gap, panel
from stepscope.analysis.quantities import name
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("trajectory",)
STUDY = "face_swap"


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, face_swap)


def draw(evidence: Evidence) -> Figure:
    """A panel of each backbone."""
    figure = canvas(2.4)
    axes = figure.subplots(1, 2, sharey=True)
    for k, backbone in enumerate(evidence.backbones):
        panel(axes[k], "ab"[k], name(backbone))
        axes[k].set_xlabel("sigma at which the face changes")
        try:
            study = study_of(evidence, STUDY, backbone)
            found = swapped(study, judge_of(evidence, study), lost(evidence))
        except StepscopeError as error:
            gap(axes[k], str(error))
            continue
        draw_swap(evidence, axes[k], found)
    axes[0].set_ylabel("cosine to the reference")
    key(figure, axes[0])
    return figure


def lost(evidence: Evidence) -> float:
    """Similarity of an image without a face."""
    return evidence.margins.lost_face if evidence.margins is not None else 0.0


def draw_swap(evidence: Evidence, axes: Axes, found: Swapped) -> None:
    """Similarity to both people, the control, and where they cross."""
    for k, (label, values) in enumerate(
        (("first person", found.own), ("second person", found.other))
    ):
        x = values["at_sigma"].values
        curve(axes, x, evidence.average(values), look(k), label)
    if found.same is not None:
        values = found.same
        mean = evidence.average(values)["mean"].values
        axes.plot(
            values["at_sigma"].values,
            mean,
            ":",
            color=INK,
            lw=1,
            label="another photo of the first",
        )
    where = crossing(found, evidence)
    if np.isfinite(float(where["position"])):
        axes.axvline(float(where["position"]), color=INK, lw=0.6)
        low, high = float(where["low"]), float(where["high"])
        if np.isfinite([low, high]).all():
            axes.axvspan(low, high, color=INK, alpha=0.08, lw=0)
    axes.set_xlim(1.02, -0.02)
