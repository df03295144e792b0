"""Do later steps refine detail, sharpness and contrast, where identity is there already?"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.bootstrap import WITHOUT, Bounds
from analysis.cells import face_means
from analysis.claims.asked import attempt, effect, joined, margins, number, wider
from analysis.compare import difference
from analysis.drift import lag
from analysis.evidence import Evidence, setting
from analysis.number import Entry, Number
from analysis.quantities import contrast, null_contrast, sharpness
from analysis.saturation import DOES_NOT_RISE, ShareOfPlateau
from analysis.verdict import AtLeast, Claim, Part
from analysis.windows import axis, saturation
from hooks.errors import StepscopeError

TITLE = "Later steps refine detail"
CLAIMED = "later steps refine detail, sharpness and contrast"
ABOVE = AtLeast(0.0)
UNDEFINED = "one of the curves does not rise, or not within the run"
NOT_TOLD = "one of the curves is not told to rise"


def claim(evidence: Evidence) -> Claim:
    """Three parts of the estimate x0 as predicted decide; contrast and carried identity stand beside."""
    asked = (
        (
            "sharpness still rises",
            lambda t: gain(evidence, t, sharpness(trajectory(evidence)), decides=True),
            True,
        ),
        ("more is left of sharpness than of identity", lambda t: left(evidence, t), True),
        ("sharpness later than identity, over the null", lambda t: later(evidence, t), True),
        ("contrast still rises", lambda t: contrasts(evidence, t), False),
        ("more is left of sharpness than of carried identity", lambda t: left_carried(evidence, t), False),
        ("sharpness later than carried identity", lambda t: later_carried(evidence, t), False),
        ("more is left with the adapter than without", lambda t: without(evidence, t), False),
    )  # fmt: skip
    parts = [
        attempt(title, ABOVE.text, lambda t=title, a=ask: a(t), decides=first)
        for title, ask, first in asked
    ]
    return Claim(TITLE, CLAIMED, parts)


def trajectory(evidence: Evidence) -> xr.Dataset:
    """The baseline's run, read at every step."""
    return evidence.one("trajectory", backbone=evidence.baseline)


def at(evidence: Evidence, values: xr.DataArray) -> int:
    """Where in a curve the paper's window ends: after so many steps. Raises StepscopeError."""
    steps = margins(evidence).window_steps
    if values.sizes["step"] <= steps:
        raise StepscopeError(
            f"the run has {values.sizes['step']} steps, none after the first {steps}"
        )
    return steps - 1


def gain(
    evidence: Evidence,
    title: str,
    values: xr.DataArray,
    *,
    against: str = "0",
    beside: Sequence[tuple[str, Entry]] = (),
    decides: bool = False,
) -> Part:
    """From the window's last step to the run's."""
    first, last = ends(evidence, values)
    what = f"gain from step {margins(evidence).window_steps} to the last"
    level = Number.of(evidence.average(last), "mean")
    return Part.of(
        title,
        ABOVE,
        what,
        effect(evidence, first, last),
        against=against,
        wider=wider(evidence, difference(first, last)),
        beside=[("at the last step", level), *beside],
        decides=decides,
    )


def ends(evidence: Evidence, values: xr.DataArray) -> list[xr.DataArray]:
    """A curve at the window's last step and at the run's."""
    along = ("step", "sigma", "timestep")
    return [
        values.isel(step=i).drop_vars(along, errors="ignore") for i in (at(evidence, values), -1)
    ]


def contrasts(evidence: Evidence, title: str) -> Part:
    """Contrast, beside the gain that blur alone would give."""
    run, what = trajectory(evidence), "the same of the blurred final image"
    try:
        told: Entry = effect(evidence, *ends(evidence, null_contrast(run)))
    except StepscopeError as error:
        told = f"not measured: {error}"
    values = contrast(run)
    return gain(evidence, title, values, beside=[(what, told)], against="0 and the blur null")


def left(evidence: Evidence, title: str) -> Part:
    """Shares of their own rises that come after the window: sharpness's minus identity's as predicted."""
    return shares(evidence, title, evidence.identity(trajectory(evidence)), decides=True)


def left_carried(evidence: Evidence, title: str) -> Part:
    """The same against identity that the latents carry."""
    return shares(evidence, title, evidence.carried(trajectory(evidence)), decides=False)


def shares(evidence: Evidence, title: str, identity: xr.DataArray, *, decides: bool) -> Part:
    """Paired by face: both curves, at the first step, the window's last, and the last."""
    detail = sharpness(trajectory(evidence))
    points = [0, at(evidence, detail), -1]
    both = joined(identity, detail).isel(step=points)

    def each(means: Float[np.ndarray, "resample 2 3"]) -> Float[np.ndarray, "resample 3"]:
        with np.errstate(invalid="ignore", divide="ignore"):
            of = (means[..., 2] - means[..., 1]) / (means[..., 2] - means[..., 0])
        return np.stack([of[:, 1] - of[:, 0], of[:, 0], of[:, 1]], 1)

    bounds = rising(
        evidence, both, evidence.interval(both.isel(quantity=0))(face_means(both).mean, each)
    )
    numbers = [number(Bounds(*(end[k] for end in bounds)), why=NOT_TOLD) for k in range(3)]
    steps = margins(evidence).window_steps
    return Part.of(
        title,
        ABOVE,
        f"share of its rise after step {steps}, sharpness minus identity",
        numbers[0],
        against="0: both rise alike",
        wider=wider(evidence, both, lambda means: each(means)[:, 0]),
        beside=[("identity's share", numbers[1]), ("sharpness's share", numbers[2])],
        decides=decides,
    )


def rising(evidence: Evidence, both: xr.DataArray, bounds: Bounds) -> Bounds:
    """Bounds of shares of rises; NaN where a curve (sample, quantity, point) is not told to rise."""
    rises = evidence.average(both.isel(step=-1) - both.isel(step=0))
    if (rises["low"].values > 0).all():
        return bounds
    nothing = np.full(np.shape(bounds.estimate), np.nan)
    return Bounds(bounds.estimate, nothing, nothing)


def later(evidence: Evidence, title: str) -> Part:
    """Lag of sharpness behind identity, minus that behind the blurred final image."""
    run = trajectory(evidence)
    identity, null, detail = evidence.identity(run), evidence.blur_null(run), sharpness(run)
    estimator = ShareOfPlateau(evidence.share, origin="first")
    x = axis(identity, "step").progress
    both = joined(identity, null)

    def over(means: Float[np.ndarray, "resample 2 point"]) -> Float[np.ndarray, "resample"]:
        # (detail - identity) - (detail - null): where sharpness itself ends drops out.
        found = [saturation(estimator, means[:, k], x) for k in (0, 1)]
        ends = [np.where(f.reason == DOES_NOT_RISE, np.nan, f.position) for f in found]
        with np.errstate(invalid="ignore"):
            return ends[1] - ends[0]

    interval = evidence.window_interval
    bounds = interval(face_means(both).mean, over)
    plain = [lag(one, detail, estimator, interval, against="step") for one in (identity, null)]
    found = number(bounds, 1, plain[0].attrs.get(WITHOUT, UNDEFINED))
    return Part.of(
        title,
        ABOVE,
        "steps, lag minus the null's lag",
        found,
        against="the final image, whose identity is constant, blurred to the sharpness of x0",
        wider=wider(evidence, both, over, digits=1),
        beside=[
            ("lag behind identity, steps", Number.of(plain[0], "lag", 1)),
            ("lag behind the null, steps", Number.of(plain[1], "lag", 1)),
        ],
        decides=True,
    )


def later_carried(evidence: Evidence, title: str) -> Part:
    """Lag of sharpness behind identity that the latents carry."""
    run = trajectory(evidence)
    identity = evidence.carried(run)
    detail = sharpness(run).sel(sample=identity["sample"])
    estimator = ShareOfPlateau(evidence.share, origin="first")
    found = lag(identity, detail, estimator, evidence.window_interval, against="step")
    return Part.of(title, ABOVE, "steps, lag", Number.of(found, "lag", 1), against="0")


def without(evidence: Evidence, title: str) -> Part:
    """Any estimate sharpens as sigma falls: the share after the window, with minus without adapter."""
    runs = {
        setting(run, "adapter.scale"): sharpness(run)
        for run in evidence.all("weak_adapter", backbone=evidence.baseline)
    }
    if 0.0 not in runs or len(runs) < 2:
        raise StepscopeError("weak_adapter has no run without adapter, or none with it")
    none, full = runs[0.0], runs[max(runs)]
    points = [0, at(evidence, full), -1]
    both = joined(none, full).isel(step=points)

    def change(means: Float[np.ndarray, "resample 2 3"]) -> Float[np.ndarray, "resample"]:
        of = (means[..., 2] - means[..., 1]) / (means[..., 2] - means[..., 0])
        return of[:, 1] - of[:, 0]

    bounds = rising(
        evidence, both, evidence.interval(both.isel(quantity=0))(face_means(both).mean, change)
    )
    return Part.of(
        title,
        ABOVE,
        "share of its rise after the window, with minus without adapter",
        number(bounds, why=NOT_TOLD),
        against="the same backbone without adapter",
    )
