"""Face swap: from a step on the adapter is given another person's face; who is in the final image?

Cosine of the final image to the first person's reference and to the second's, against sigma at the step
from which the adapter is given the second, with the same noise: at the left of the second person's own
run, at the right of the first person's. Bands: intervals over faces. Vertical line: sigma at which both
similarities are equal, with its interval over faces. Controls: another photo of the first person in place
of the second, which should change nothing; a face embedding at the same distance from the first in a
random direction, which should lead to nobody (of it no whole run is made); and the second face in as many
steps, at random places (others for each sample), which tells the number of steps from their place.
"""

import numpy as np
import xarray as xr
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
TITLES = (
    "another person",
    "control: another photo",
    "control: random face",
    "control: random steps",
)
ABSENT = "this control was not made: remove the folder interventions/face_swap"


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, face_swap)


def draw(evidence: Evidence) -> Figure:
    """A row of each backbone: the swap, and its controls."""
    figure = canvas(3.6)
    axes = figure.subplots(2, len(TITLES), sharey=True, sharex=True)
    for row, backbone in enumerate(evidence.backbones):
        for column, title in enumerate(TITLES):
            panel(axes[row, column], "abcdefgh"[len(TITLES) * row + column], title)
        axes[row, 0].set_ylabel(f"{name(backbone)}\ncosine to the reference")
        try:
            study = study_of(evidence, STUDY, backbone)
            found = swapped(study, judge_of(evidence, study), lost(evidence))
        except StepscopeError as error:
            for one in axes[row]:
                gap(one, str(error))
            continue
        photo = None if found.photo is None else (found.photo,)
        drawn = ((found.own, found.other), photo, found.random, found.shuffled)
        for one, values in zip(axes[row], drawn, strict=True):
            draw_swap(evidence, one, values)
        draw_crossing(evidence, axes[row, 0], found)
    axes[0, 0].set_xlim(1.02, -0.02)
    figure.supxlabel(
        "sigma at which the face changes (random steps: after as many with the first face)",
        fontsize=7,
    )
    key(figure, axes[0, 0])
    return figure


def lost(evidence: Evidence) -> float:
    """Similarity of an image without a face."""
    return evidence.margins.lost_face if evidence.margins is not None else 0.0


def draw_swap(evidence: Evidence, axes: Axes, found: tuple[xr.DataArray, ...] | None) -> None:
    """Similarity to the first person, and to the second."""
    axes.axhline(0, color="#999999", lw=0.6, zorder=0)
    if found is None:
        gap(axes, ABSENT)
        return
    for k, values in enumerate(found):
        label = ("to the first person", "to the second person")[k]
        curve(axes, values["at_sigma"].values, evidence.average(values), look(k), label)


def draw_crossing(evidence: Evidence, axes: Axes, found: Swapped) -> None:
    """Where both similarities are equal."""
    where = crossing(found, evidence)
    if np.isfinite(float(where["position"])):
        axes.axvline(float(where["position"]), color=INK, lw=0.6)
        low, high = float(where["low"]), float(where["high"])
        if np.isfinite([low, high]).all():
            axes.axvspan(low, high, color=INK, alpha=0.08, lw=0)
