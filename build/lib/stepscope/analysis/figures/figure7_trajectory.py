"""The conceptual trajectory, fitted to the measured one: identity and sharpness readable in x0.

Dots: means over faces along the run, rescaled so that the first step is 0 and the last lies on the
curve; bars: intervals over faces of the rescaled values, without width at the first and the last step
by construction; an arrow marks an interval that extends beyond the axis. Curves: 1 - exp(-s / tau), s the
step, with tau from the saturating fit to each mean (the position at half of its rise, over ln 2); bands:
the interval of tau. Where the fit finds no saturation within the run there is no curve, and the panel
gives the reason. Grey: the blur null, the final image blurred to the sharpness of x0, whose identity is
constant: an early rise that it shares is an effect of blur on the recogniser. The adapter supplies x0 at
that evaluation; figure 3 shows what the latents carry. The shape of the curve is an assumption of the
concept; deviations of the dots from it are findings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.cells import face_means
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import key, look, steps
from stepscope.analysis.figures.readings import NULL, READINGS
from stepscope.analysis.figures.style import QUIET, Look, canvas, gap, panel
from stepscope.analysis.quantities import run_name, sharpness
from stepscope.analysis.saturation import ExponentialApproach
from stepscope.analysis.windows import window
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("trajectory",)
HALF = ExponentialApproach(share=0.5, origin="first")
LEAST, MOST = -0.5, 2.0
"""Shares of the way beyond which an interval is cut off, with an arrow."""
LINE = 0.09
"""Height of a line of text, as a share of the panel."""


@dataclass(frozen=True)
class Course:
    """One quantity's way along the run, as shares of the way to its plateau.

    shares: middle, lower and upper ends at each step, NaN where not defined. taus: the fit's, and
    the ends of its interval, in steps; NaN or inf where the run shows no saturation, and then `why`.
    """

    label: str
    look: Look
    step: Float[np.ndarray, "step"]
    shares: Float[np.ndarray, "3 step"]
    taus: Float[np.ndarray, "3"]
    why: str

    @property
    def fitted(self) -> bool:
        """Whether there is a curve to draw."""
        return bool(self.taus[0] > 0)


def draw(evidence: Evidence) -> Figure:
    """A panel for each backbone."""
    figure = canvas(2.6)
    axes = figure.subplots(1, 2, sharey=True)
    every, nulls = [], []
    for one, letter, backbone in zip(axes, "ab", evidence.backbones, strict=True):
        run = evidence.one("trajectory", backbone=backbone)
        panel(one, letter, run_name(run))
        steps(one, run.sizes["step"])
        quantities = (
            ("identity as predicted", evidence.identity),
            ("sharpness of the face", sharpness),
        )
        courses: list[Course] = []
        for k, (label, quantity) in enumerate(quantities):
            try:
                courses.append(course(evidence, quantity(run), look(2 * k), label))
            except StepscopeError as error:
                gap(one, str(error))
        every.append(courses)
        nulls.append(null(evidence, run))
    low, high = limits([c for courses in every for c in courses])
    for one, courses, blur in zip(axes, every, nulls, strict=True):
        one.set_ylim(low, high)
        if blur is not None:
            grey = READINGS[NULL][1]
            one.plot(blur.step, blur.shares[0], color=grey.colour, ls=grey.line, label=NULL)
        for each in courses:
            concept(one, each)
        refusals(one, courses)
    axes[0].set_ylabel("share of the way to the plateau")
    key(figure, max(axes, key=lambda one: len(one.get_legend_handles_labels()[1])))
    return figure


def null(evidence: Evidence, run: xr.Dataset) -> Course | None:
    """The blur null's identity; None where it was not measured."""
    try:
        return course(evidence, evidence.blur_null(run), READINGS[NULL][1], NULL)
    except StepscopeError:
        return None


def course(evidence: Evidence, values: xr.DataArray, drawn: Look, label: str) -> Course:
    """Measured shares and fit of one quantity, values (sample, step)."""
    step = values["step"].values.astype(float)
    found = window(values, HALF, evidence.window_interval, against="step")
    position = np.array([float(found[word]) for word in ("position", "low", "high")])
    taus = (position - step[0]) / np.log(2)
    whole = 1 - np.exp(-(step[-1] - step[0]) / taus[0]) if taus[0] > 0 else 1.0

    def share(means: Float[np.ndarray, "resample step"]) -> Float[np.ndarray, "resample step"]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return whole * (means - means[:, :1]) / (means[:, -1:] - means[:, :1])

    shares = np.stack(evidence.interval(values)(face_means(values).mean, share))
    why = found["reason"].item() or "the first step is already half way"
    return Course(label, drawn, step, shares, taus, why.split(":")[0])


def limits(courses: Sequence[Course]) -> tuple[float, float]:
    """Of the y axis: all dots, and of the intervals what is neither far below 0 nor far above 1."""
    ends = np.concatenate([[-0.1, 1.1], *(np.clip(c.shares, LEAST, MOST).ravel() for c in courses)])
    dots = np.concatenate([[0.0, 1.0], *(c.shares[0] for c in courses)])
    ends, dots = ends[np.isfinite(ends)], dots[np.isfinite(dots)]
    low, high = min(ends.min(), dots.min()), max(ends.max(), dots.max())
    spare = 0.04 * (high - low)
    above = LINE * min(2, sum(not c.fitted for c in courses)) * (high - low)
    return low - spare, high + spare + above


def concept(axes: Axes, found: Course) -> None:
    """Measured means and the fitted curve of one quantity."""
    bottom, top = axes.get_ylim()
    middle, low, high = found.shares
    arms = [middle - np.maximum(low, bottom), np.minimum(high, top) - middle]
    axes.errorbar(
        found.step, middle, np.maximum(arms, 0.0), ls="none", marker=found.look.marker, ms=2.6,
        elinewidth=0.7, color=found.look.colour, label=found.label,
    )  # fmt: skip
    for beyond, edge, arrow in ((low < bottom, bottom, "v"), (high > top, top, "^")):
        for place in found.step[beyond]:
            axes.plot(place, edge, arrow, color=found.look.colour, ms=3, clip_on=False)
    if not found.fitted:
        return
    fine = np.linspace(found.step[0], found.step[-1], 200)
    with np.errstate(divide="ignore", invalid="ignore"):
        curve, *edges = (1 - np.exp(-(fine - fine[0]) / max(tau, 1e-9)) for tau in found.taus)
    axes.plot(fine, curve, color=found.look.colour, ls=found.look.line)
    axes.fill_between(fine, *edges, color=found.look.colour, alpha=0.18, lw=0)


def refusals(axes: Axes, courses: Sequence[Course]) -> None:
    """What is not fitted, and why, above the dots."""
    for row, found in enumerate(c for c in courses if not c.fitted):
        text = f"{found.label}: {found.why}"
        place = (0.02, 0.98 - LINE * row)
        axes.text(*place, text, color=QUIET, va="top", transform=axes.transAxes)
