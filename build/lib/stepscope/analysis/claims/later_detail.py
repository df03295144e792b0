"""Do later steps refine detail, sharpness and contrast, after identity is present?"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from stepscope.analysis.bootstrap import WITHOUT, Bounds
from stepscope.analysis.cells import face_means
from stepscope.analysis.claims.estimates import (
    adapter_off_and_on,
    attempt,
    crossed,
    effect,
    margins,
    mean,
    nan_without_rise,
    number,
    stack_pairs,
)
from stepscope.analysis.compare import difference
from stepscope.analysis.drift import lag
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.number import Entry, Number
from stepscope.analysis.quantities import contrast, null_contrast, sharpness
from stepscope.analysis.saturation import DOES_NOT_RISE, ShareOfPlateau
from stepscope.analysis.verdict import AtLeast, Claim, Part
from stepscope.analysis.windows import axis, saturation
from stepscope.hooks.errors import StepscopeError

TITLE = "Later steps refine detail"
CLAIMED = "later steps refine detail, sharpness and contrast"
ABOVE = AtLeast(0.0)
UNDEFINED = "one of the curves does not rise, or not within the run"
NO_RISE = "no rise is shown for one of the curves"
Ask = Callable[[Evidence, str], Part]


def claim(evidence: Evidence) -> Claim:
    """Three parts of the estimate x0 as predicted decide; contrast and carried identity do not.

    Raises StepscopeError where the evidence has no margins.
    """
    parts = [
        attempt(title, ABOVE.text, lambda t=title, a=ask: a(evidence, t), decides=decides)
        for title, ask, decides in PARTS
    ]
    return Claim(TITLE, CLAIMED, parts)


def trajectory(evidence: Evidence) -> xr.Dataset:
    """The baseline's run, measured at every step."""
    return evidence.one("trajectory", backbone=evidence.baseline)


def window_end(evidence: Evidence, values: xr.DataArray) -> int:
    """Index of the last step of the paper's window. Raises StepscopeError for a run that ends there."""
    steps = margins(evidence).window_steps
    if values.sizes["step"] <= steps:
        raise StepscopeError(
            f"the run has {values.sizes['step']} steps, none after the first {steps}"
        )
    return steps - 1


def sharpness_gain(evidence: Evidence, title: str) -> Part:
    """Gain of sharpness after the window."""
    return gain(evidence, title, sharpness(trajectory(evidence)), decides=True)


def gain(
    evidence: Evidence,
    title: str,
    values: xr.DataArray,
    *,
    control: str = "0",
    secondary: Sequence[tuple[str, Entry]] = (),
    decides: bool = False,
) -> Part:
    """Change of values (sample, step) from the window's last step to the run's."""
    first, last = ends(evidence, values)
    return Part.of(
        title,
        ABOVE,
        f"gain from step {margins(evidence).window_steps} to the last",
        effect(evidence, first, last),
        control=control,
        crossed=crossed(evidence, difference(first, last)),
        secondary=[("at the last step", mean(evidence, last)), *secondary],
        decides=decides,
    )


def ends(evidence: Evidence, values: xr.DataArray) -> list[xr.DataArray]:
    """Values (sample) at the window's last step and at the run's."""
    along = ("step", "sigma", "timestep")
    return [
        values.isel(step=i).drop_vars(along, errors="ignore")
        for i in (window_end(evidence, values), -1)
    ]


def contrast_gain(evidence: Evidence, title: str) -> Part:
    """Gain of contrast after the window, beside the gain that blur alone gives."""
    run = trajectory(evidence)
    try:
        null: Entry = effect(evidence, *ends(evidence, null_contrast(run)))
    except StepscopeError as error:
        null = f"not measured: {error}"
    return gain(
        evidence,
        title,
        contrast(run),
        control="0 and the blur null",
        secondary=[("the same of the blurred final image", null)],
    )


def left(evidence: Evidence, title: str) -> Part:
    """Share of its rise that comes after the window: sharpness's minus predicted identity's."""
    return share_left(evidence, title, evidence.identity(trajectory(evidence)), decides=True)


def left_carried(evidence: Evidence, title: str) -> Part:
    """The same difference, with identity that the latents carry."""
    return share_left(evidence, title, evidence.carried(trajectory(evidence)), decides=False)


def share_left(evidence: Evidence, title: str, identity: xr.DataArray, *, decides: bool) -> Part:
    """Sharpness against identity (sample, step), paired by face."""
    detail = sharpness(trajectory(evidence))
    both = at_three_steps(evidence, identity, detail)

    def shares(means: Float[np.ndarray, "resample 2 3"]) -> Float[np.ndarray, "resample 3"]:
        of = rise_left(means)
        return np.stack([of[:, 1] - of[:, 0], of[:, 0], of[:, 1]], 1)

    bounds = evidence.interval(both.isel(quantity=0))(face_means(both).mean, shares)
    bounds = nan_without_rise(evidence, both, bounds)
    numbers = [number(Bounds(*(end[k] for end in bounds)), why=NO_RISE) for k in range(3)]
    steps = margins(evidence).window_steps
    return Part.of(
        title,
        ABOVE,
        f"share of its rise after step {steps}, sharpness minus identity",
        numbers[0],
        control="0: both rise alike",
        crossed=crossed(evidence, both, lambda means: shares(means)[:, 0]),
        secondary=[("identity's share", numbers[1]), ("sharpness's share", numbers[2])],
        decides=decides,
    )


def at_three_steps(evidence: Evidence, first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """Two curves as one (sample, quantity, 3): at the first step, the window's last, and the last."""
    points = [0, window_end(evidence, second), -1]
    return stack_pairs(first, second).isel(step=points)


def rise_left(means: Float[np.ndarray, "resample 2 3"]) -> Float[np.ndarray, "resample 2"]:
    """Share of the rise from the first of three points to the last that comes after the second."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (means[..., 2] - means[..., 1]) / (means[..., 2] - means[..., 0])


def lag_beyond_null(evidence: Evidence, title: str) -> Part:
    """Lag of sharpness behind identity, minus its lag behind the blurred final image."""
    run = trajectory(evidence)
    identity, null, detail = evidence.identity(run), evidence.blur_null(run), sharpness(run)
    estimator = ShareOfPlateau(evidence.share, origin="first")
    x = axis(identity, "step").progress
    both = stack_pairs(identity, null)

    def null_minus_identity(
        means: Float[np.ndarray, "resample 2 point"],
    ) -> Float[np.ndarray, "resample"]:
        # (detail - identity) - (detail - null): sharpness's own position cancels.
        curves = [saturation(estimator, means[:, k], x) for k in (0, 1)]
        ends = [np.where(c.reason == DOES_NOT_RISE, np.nan, c.position) for c in curves]
        with np.errstate(invalid="ignore"):
            return ends[1] - ends[0]

    interval = evidence.window_interval
    bounds = interval(face_means(both).mean, null_minus_identity)
    lags = [lag(one, detail, estimator, interval, against="step") for one in (identity, null)]
    return Part.of(
        title,
        ABOVE,
        "steps, lag minus the null's lag",
        number(bounds, 1, lags[0].attrs.get(WITHOUT, UNDEFINED)),
        control="the final image, whose identity is constant, blurred to the sharpness of x0",
        crossed=crossed(evidence, both, null_minus_identity, digits=1),
        secondary=[
            ("lag behind identity, steps", Number.of(lags[0], "lag", 1)),
            ("lag behind the null, steps", Number.of(lags[1], "lag", 1)),
        ],
        decides=True,
    )


def lag_behind_carried(evidence: Evidence, title: str) -> Part:
    """Lag of sharpness behind identity that the latents carry."""
    run = trajectory(evidence)
    identity = evidence.carried(run)
    detail = sharpness(run).sel(sample=identity["sample"])
    estimator = ShareOfPlateau(evidence.share, origin="first")
    steps = lag(identity, detail, estimator, evidence.window_interval, against="step")
    return Part.of(title, ABOVE, "steps, lag", Number.of(steps, "lag", 1), control="0")


def left_with_adapter(evidence: Evidence, title: str) -> Part:
    """Share of sharpness's rise after the window, with minus without adapter.

    Any estimate x0 sharpens as sigma falls, so that the rise alone does not show refinement.
    """
    runs = evidence.all("weak_adapter", backbone=evidence.baseline)
    both = at_three_steps(evidence, *adapter_off_and_on(runs, sharpness))

    def change(means: Float[np.ndarray, "resample 2 3"]) -> Float[np.ndarray, "resample"]:
        of = rise_left(means)
        return of[:, 1] - of[:, 0]

    bounds = evidence.interval(both.isel(quantity=0))(face_means(both).mean, change)
    bounds = nan_without_rise(evidence, both, bounds)
    return Part.of(
        title,
        ABOVE,
        "share of its rise after the window, with minus without adapter",
        number(bounds, why=NO_RISE),
        control="the same backbone without adapter",
    )


PARTS: tuple[tuple[str, Ask, bool], ...] = (
    ("sharpness still rises", sharpness_gain, True),
    ("sharpness has more of its rise left than identity", left, True),
    ("sharpness lags identity, beyond the blur null", lag_beyond_null, True),
    ("contrast still rises", contrast_gain, False),
    ("sharpness has more of its rise left than carried identity", left_carried, False),
    ("sharpness lags carried identity", lag_behind_carried, False),
    ("sharpness has more of its rise left with the adapter", left_with_adapter, False),
)
"""Title, question, and whether it decides."""
