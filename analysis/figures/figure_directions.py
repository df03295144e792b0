"""Directions: do differences of mean activations tell the adapter and a person, and do they carry a face?

A direction is a difference of means that is learned from other samples than those it is tested on: of
another prompt, and of another seed where the run has several. Maps, of residual streams of image
tokens: how far samples differ along it, in units of the norm of the stream; of the adapter, with it
minus without it at the same x_t, learned from other people; of a face, the person minus everybody else
with the same prompt and seed, whose x_t differ too after the first step. Hatched: no difference at all.
Dots: cells that differ from 0 with the error of the map held (max-T over sign flips of faces).
Steering, of what the adapter adds after every block or of the stream after one block (s00 residual), in
all steps: share of identity in the final image, 1 with the adapter and 0 without it. Given: a multiple
of the direction is added to the run without the adapter; taken: it is taken from the run with it. Own:
what the adapter changes for the person, and other people's: for all others, each image token or region
with its mean; pooled: one mean for all tokens. Random: the same in a random basis, of the same lengths
and angles. To another person: the difference of two people's means is added to the run of one. Learned
on the baseline: on the baseline's run, at the step whose sigma is nearest; what the adapter adds is
made by one network for both backbones, the stream is the backbone's. Intervals over faces (Fieller).
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from stepscope.analysis.causal.effects import LEVEL
from stepscope.analysis.causal.projections import mapped
from stepscope.analysis.causal.steered import GROUPS, Share, shares
from stepscope.analysis.causal.words import directions, of_backbones
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, heatmap, key, look
from stepscope.analysis.figures.style import canvas, gap, panel
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.quantities import name
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.usage import says

EXPERIMENTS = ("trajectory",)
STUDY = "directions"
MAPS = (("of_adapter", "adapter on and off"), ("of_face", "a face and the others"))
ENDING = ".residual.image"
COLOURS = "RdBu_r"
SHOWN = (-0.6, 1.6)
"""Shares outside are drawn at the edge."""


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, directions)


def draw(evidence: Evidence) -> Figure:
    """Maps of both backbones above, steering below."""
    figure = canvas(5.8)
    above, below = figure.subfigures(2, 1, height_ratios=[0.85, 1.15], squeeze=False)[:, 0]
    axes = above.subplots(1, 4)
    for k, backbone in enumerate(evidence.backbones):
        for m, (word, title) in enumerate(MAPS):
            one = axes[2 * k + m]
            panel(one, "abcd"[2 * k + m], f"{name(backbone)}:\n{title}")
            try:
                draw_map(one, projected(evidence, backbone), word)
            except StepscopeError as error:
                gap(one, str(error))
    shown = below.subplots()
    draw_shares(evidence, shown)
    key(below, shown)
    return figure


def projected(evidence: Evidence, backbone: str) -> xr.Dataset:
    """The projections of a backbone's study. Raises MissingEvidenceError where it was not made."""
    if backbone not in evidence.projections:
        raise MissingEvidenceError(
            f"no directions were learned on {backbone}: {says('paper')} experiments=[trajectory] does it, "
            f"where its causal.{STUDY} says how"
        )
    return evidence.projections[backbone]


def draw_map(axes: Axes, found: xr.Dataset, word: str) -> None:
    """Blocks by steps, with a scale of its own."""
    made = mapped(found, word, ENDING, LEVEL)
    most = float(np.nanmax(np.abs(made.mean))) or 1.0
    norm = TwoSlopeNorm(0.0, -most, most)
    blocks = [site.removesuffix(ENDING) for site in made.sites]
    short = [block.replace("double.", "d").replace("single.", "s") for block in blocks]
    heatmap(axes, made.mean, short, norm, colours=COLOURS)
    axes.set_xticks(np.arange(len(made.steps)) + 0.5, [str(step) for step in made.steps])
    rows, columns = np.nonzero(made.survives)
    axes.plot(columns + 0.5, rows + 0.5, ".", color="#000000", ms=2.5)
    axes.set_xlabel(f"step\n(at most {most:.2g} of the norm)")


def draw_shares(evidence: Evidence, axes: Axes) -> None:
    """A row of each part, a mark of each backbone."""
    apart = dict.fromkeys(w for one in evidence.projections.values() for w in one.attrs["held_out"])
    said = f", learned from another {' and '.join(apart)}" if apart else ""
    said += "" if "seed" in apart or not apart else " with the same noise"
    panel(axes, "e", f"steering{said}")
    axes.set_xlabel("share of identity; to another person: share of the way")
    found: dict[str, list[Share]] = {}
    for backbone in evidence.backbones:
        try:
            found[backbone] = shares(evidence, STUDY, backbone)
        except StepscopeError as error:
            gap(axes, str(error))
            return
    longest = sorted(found.values(), key=len, reverse=True)
    rows = list(dict.fromkeys((one.group, one.label) for some in longest for one in some))
    rows.sort(key=lambda row: GROUPS.index(row[0]))  # stable: within a group as in the file
    for level in (0, 1):
        axes.axvline(level, color="#999999", lw=0.6, zorder=0)
    for k, (backbone, some) in enumerate(found.items()):
        place = [rows.index((one.group, one.label)) + 0.3 * (k - 0.5) for one in some]
        values = np.array([[one.share, one.low, one.high] for one in some]).T
        shown = np.clip(values, *SHOWN)
        bars(axes, place, list(shown), look(k), across=True, label=name(backbone), elinewidth=0.7)
    for first in (i for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0]):
        axes.axhline(first - 0.5, color="#999999", lw=0.6, ls=":")
    axes.set_yticks(range(len(rows)), [f"{group}: {label}" for group, label in rows], fontsize=5.8)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(SHOWN[0] - 0.05, SHOWN[1] + 0.05))
    axes.grid(axis="x")
