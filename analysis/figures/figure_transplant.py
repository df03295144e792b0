"""Transplants: which steps and blocks carry identity from another person's run into a sample?

In one cell, a step (or a bin of steps) and a block, a site holds what it holds in the run of another
person with the same noise. Colour: the share of the way to that person, (m - m_A) / (m_B - m_A), with m
the judge's cosine to the other person's reference, A the sample and B the other person's run.
Free-running: of the final image. Clamped: of x0 at the edited step, from the sample's own x_t. Rows of
maps: what the adapter adds, attention outputs and residual streams, both of image tokens. Dots: cells
in which the change of the similarity to the sample's own person differs from 0 with the error of the
map held (max-T over sign flips of faces); their number stands above. In groups of blocks: all blocks
before one; and controls: another photo of the same person, of which the share of the own identity that
is lost is drawn; a change of the same length in a random direction; and as many blocks as come before a
block, at random places, others for each sample.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from stepscope.analysis.causal.effects import as_map, effects
from stepscope.analysis.causal.words import of_backbones, transplant
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import heatmap
from stepscope.analysis.figures.style import canvas, gap
from stepscope.analysis.quantities import name
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("step_budget",)
STUDY = "transplant"
MAPS = (
    ("adapter", "final", "adapter, free-running"),
    ("adapter", "clamped", "adapter, clamped"),
    ("attention", "final", "attention, free-running"),
    ("attention", "clamped", "attention, clamped"),
    ("residual", "final", "residual, free-running"),
    ("residual", "clamped", "residual, clamped"),
    ("adapter of the first blocks", "final", "adapter, blocks before"),
    ("adapter of shuffled blocks", "final", "control: random blocks"),
    ("adapter of another photo", "final", "control: another photo"),
    ("adapter at random", "final", "control: random"),
)
ACROSS = 5
NORM = TwoSlopeNorm(0.0, -0.25, 1.0)
COLOURS = "RdBu_r"


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, transplant)


def draw(evidence: Evidence) -> Figure:
    """Two rows of maps for each backbone."""
    figure = canvas(8.2)
    axes = figure.subplots(4, ACROSS)
    for k, backbone in enumerate(evidence.backbones):
        for place, (part, image, title) in enumerate(MAPS):
            one = axes[2 * k + place // ACROSS, place % ACROSS]
            letter = chr(ord("a") + len(MAPS) * k + place)
            try:
                count = draw_map(evidence, one, backbone, part, image)
            except StepscopeError as error:
                gap(one, str(error))
                count = ""
            one.set_title(f"$\\bf{{{letter}}}$ {title}\n{count}", fontsize=6)
        axes[2 * k, 0].set_ylabel(of_run(evidence, backbone))
        axes[2 * k + 1, 0].set_ylabel(of_run(evidence, backbone))
    bar = figure.colorbar(
        ScalarMappable(NORM, COLOURS), ax=axes, location="bottom", shrink=0.4, aspect=40
    )
    bar.set_label(
        "share of the way to the other person (another photo: share of the own identity lost)"
    )
    return figure


def of_run(evidence: Evidence, backbone: str) -> str:
    """The backbone, and the steps of its run where the study was made."""
    made = evidence.causal.get((STUDY, backbone))
    return name(backbone) if made is None else f"{name(backbone)}, {made.sizes['step']} steps"


def draw_map(evidence: Evidence, axes: Axes, backbone: str, part: str, image: str) -> str:
    """One map, and how many cells are dotted; of another photo the share lost, as it leads to nobody."""
    found = effects(evidence, STUDY, backbone, part, image)
    found = found.assign(lost=1 - found["kept"])
    values, blocks, steps = as_map(found, "lost" if found["gained"].isnull().all() else "gained")
    survives, _, _ = as_map(found.assign(survives=found["survives"].astype(float)), "survives")
    short = [block.replace("double.", "d").replace("single.", "s") for block in blocks]
    heatmap(axes, values, short, NORM, colours=COLOURS)
    axes.set_xticks(np.arange(len(steps)) + 0.5, [str(step) for step in steps])
    rows, columns = np.nonzero(survives == 1)
    axes.plot(columns + 0.5, rows + 0.5, ".", color="#000000", ms=2.5)
    axes.set_xlabel("first step of the bin" if wide(steps) else "step")
    return f"{int(np.nansum(survives))} of {survives.size} cells"


def wide(steps: list[int]) -> bool:
    """Whether columns are bins of several steps."""
    return len(steps) > 1 and steps[1] - steps[0] > 1
