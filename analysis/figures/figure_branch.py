"""Branches: a recorded run goes on from a step with something else; what of the image is decided by then?

Against sigma at the step from which the run goes on with another person's face, another prompt, a weaker
adapter or other noise (x0 as estimated, with another seed's noise). Left: share of the identity that is
left in the final image, 1 as in the run itself and 0 as in the run without the adapter, or for another
person as in that person's run, with the same noise. Right: root mean square change of pixels outside the
face, 0 to 1: what is not identity. Bands and bars: intervals over faces (Fieller for shares, else
bootstrap). At sigma 0 nothing is left to change. Controls of another face are in the figure of face swaps.
"""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.causal.effects import effects, study_of
from stepscope.analysis.causal.words import branch, of_backbones
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, curve, key, look
from stepscope.analysis.figures.style import canvas, gap, panel
from stepscope.analysis.quantities import name
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.names import ANCHOR

EXPERIMENTS = ("step_budget",)
STUDY = "branch"


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers."""
    return of_backbones(evidence, branch)


def draw(evidence: Evidence) -> Figure:
    """A row of each backbone: identity, and what is not identity."""
    figure = canvas(4.2)
    axes = figure.subplots(2, 2, sharex=True, sharey="col")
    for row, backbone in enumerate(evidence.backbones):
        for column, title in enumerate(("identity", "outside the face")):
            panel(axes[row, column], "abcd"[2 * row + column], title)
        axes[row, 0].set_ylabel(f"{name(backbone)}\nshare of identity left")
        axes[row, 1].set_ylabel("change of pixels")
        try:
            study = study_of(evidence, STUDY, backbone)
            parts = [
                part for part in dict.fromkeys(study["part"].values.tolist()) if part != ANCHOR
            ]
            for k, part in enumerate(parts):
                found = effects(evidence, STUDY, backbone, part)
                draw_identity(axes[row, 0], found, study["sigma"].values, k, part)
                draw_outside(evidence, axes[row, 1], study, part, k)
        except StepscopeError as error:
            for one in axes[row]:
                gap(one, str(error))
    axes[0, 0].set_xlim(1.02, -0.02)
    axes[0, 0].set_ylim(-0.35, 1.35)
    figure.supxlabel("sigma at which the run goes on with something else", fontsize=7)
    key(figure, axes[0, 0])
    return figure


def draw_identity(axes: Axes, found: xr.Dataset, sigma: np.ndarray, k: int, part: str) -> None:
    """Shares with intervals, cut where they leave the panel by far."""
    for level in (0, 1):
        axes.axhline(level, color="#999999", lw=0.6, zorder=0)
    place = sigma[found["at"].values.astype(int)]
    values = [np.clip(found[word].values, -0.6, 1.6) for word in ("kept", "kept_low", "kept_high")]
    bars(axes, place + (k - 1.5) * 0.008, values, look(k), label=part, ls="-", lw=0.7)


def draw_outside(evidence: Evidence, axes: Axes, study: xr.Dataset, part: str, k: int) -> None:
    """Change of pixels outside the face, by the step at which the run branches."""
    own = study["edited_outside"].isel(sample=study["part"].values == part)
    at = sorted({*own["at"].values.tolist()})
    columns = [own.isel(sample=own["at"].values == step) for step in at]
    values = xr.DataArray(
        np.stack([one.values for one in columns], 1),
        dims=("sample", "point"),
        coords={word: ("sample", columns[0][word].values) for word in ("face", "prompt", "seed")},
        attrs=own.attrs,
    )
    curve(axes, study["sigma"].values[at], evidence.average(values), look(k), part)
