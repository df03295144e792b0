"""Adapter windows: in which steps, and at which blocks, the adapter is enough, and where it is needed.

Share of identity that is left in the final image, 1 with the whole adapter and 0 without it, with the
same noise. Steps: the adapter is on in the first steps alone (up to the place on the axis), from there
on, in one bin of steps alone, or in all others. Blocks: the same of what the adapter adds after blocks,
in all steps. Full adapter: enough; empty where it is on nowhere. Intervals (Fieller) over faces;
ringed: changes that differ from 0 with the error of the whole row held (max-T over sign flips of
faces). Controls: as many steps, or blocks, on as before the place on the axis, at random places, others
for each sample. Identity is the judge's cosine to the reference, that of an image without a face
`verdict.lost_face`.
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.causal.effects import effects, study_of
from stepscope.analysis.causal.words import adapter_window, bins, of_backbones
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, look
from stepscope.analysis.figures.style import INK, canvas, gap, panel
from stepscope.analysis.quantities import name
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("trajectory",)
STUDY = "adapter_window"
STEPS = (("first steps", "later steps", "shuffled steps"), ("one step", "all but one step"))
BLOCKS = ("one block", "all but one block", "first blocks", "later blocks", "shuffled blocks")
SAID = {
    "first steps": "on before the step", "later steps": "on from the step", "one step": "on there alone",
    "all but one step": "off there alone", "one block": "on at the block alone",
    "all but one block": "off at the block alone", "first blocks": "on before the block",
    "later blocks": "on from the block", "shuffled steps": "control: as many on at random",
    "shuffled blocks": "control: as many on at random",
}  # fmt: skip


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, adapter_window)


def draw(evidence: Evidence) -> Figure:
    """A row of each backbone: two panels of steps, one of blocks."""
    figure = canvas(5.0)
    axes = figure.subplots(2, 3, width_ratios=[1, 1, 1.3], sharey=True)
    for row, backbone in enumerate(evidence.backbones):
        for column, parts in enumerate((*STEPS, BLOCKS)):
            one, letter = axes[row, column], "abcdef"[3 * row + column]
            panel(
                one,
                letter,
                ("first or later steps", "one bin of steps", "blocks, in all steps")[column],
            )
            try:
                found = [effects(evidence, STUDY, backbone, part) for part in parts]
            except StepscopeError as error:
                gap(one, str(error))
                continue
            sigma = study_of(evidence, STUDY, backbone)["sigma"].values if column < 2 else None
            draw_parts(one, parts, found, sigma)
            if column == 2:
                one.set_xlabel(first_of(bins(study_of(evidence, STUDY, backbone), "together")))
        axes[row, 0].set_ylabel(f"{name(backbone)}\nshare of identity left")
    for column in (0, 1, 2):  # below: inside there is no place that data never take
        drawn = [one for one in axes[:, column] if one.get_legend_handles_labels()[1]]
        place = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.3), "borderaxespad": 0.0}
        if drawn:
            axes[1, column].legend(*drawn[0].get_legend_handles_labels(), fontsize=6, **place)
    return figure


def first_of(groups: str) -> str:
    """The label of an axis of blocks, or of groups of them, which are named after their first."""
    return "block" if groups == "blocks" else f"first block of {groups}"


def draw_parts(
    axes: Axes, parts: tuple[str, ...], found: list[xr.Dataset], sigma: np.ndarray | None
) -> None:
    """Shares with intervals; against the sigma (step,) of the run's steps, or against blocks in order."""
    for level in (0, 1):
        axes.axhline(level, color="#999999", lw=0.6, zorder=0)
    blocks = list(
        dict.fromkeys(block for one in found for block in one["at_block"].values.tolist())
    )
    for k, (part, one) in enumerate(zip(parts, found, strict=True)):
        if sigma is not None:
            order, at = sigma.tolist(), one["at"].values.astype(int)
        else:
            order, at = (
                [*range(len(blocks))],
                np.array([*map(blocks.index, one["at_block"].values)]),
            )
        if part.startswith("shuffled"):  # named after how many are off
            at = len(order) - at
        place = np.array(order, float)[at]
        shift = (k - (len(parts) - 1) / 2) * (0.14 if sigma is None else 0.012)
        values = [
            np.clip(one[word].values, -0.6, 1.6) for word in ("kept", "kept_low", "kept_high")
        ]
        bars(axes, place + shift, values, look(k), label=SAID[part], ls="-", lw=0.7, elinewidth=0.7)
        kept = one["survives"].values
        axes.plot(place[kept] + shift, values[0][kept], "o", ms=6, mfc="none", mec=INK, mew=0.6)
    if sigma is not None:
        axes.set_xlim(1.04, -0.02)
        axes.set_xlabel("sigma at the step")
    else:
        short = [block.replace("double.", "d").replace("single.", "s") for block in blocks]
        axes.set_xticks(range(len(blocks)), short, rotation=90, fontsize=5.5)
    axes.set_ylim(-0.35, 1.35)
