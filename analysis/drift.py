"""Drift, lift and lag of curves; the definitions are ours where the paper gives none."""

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from stepscope.analysis.bootstrap import Interval, too_few, weighted_means
from stepscope.analysis.cells import cell_keys, face_means
from stepscope.analysis.compare import compare
from stepscope.analysis.power import Design
from stepscope.analysis.saturation import DOES_NOT_RISE, Estimator
from stepscope.analysis.windows import Against, axis, saturation
from stepscope.hooks.errors import StepscopeError


def drift(curves: xr.DataArray, interval: Interval) -> xr.Dataset:
    """Peak of the mean curve minus its endpoint, positive where the curve falls after its peak.

    The maximum of a noisy curve is too high, so that the plain difference (`plain`) is biased upwards and
    positive even without drift; the jackknife does not correct its interval. `drift` is cross-fitted over
    faces, our definition: the faces, in the order of their names, are split alternately into two halves,
    each half's mean curve gives the peak for the other half (`placed`, both peaks), and the fall from there
    is averaged over all faces. The interval is for these peaks; the population's own peak may be slightly
    higher where neighbouring steps are close, and a nominal 95 % covers it in about 90 %. `detectable`: the
    smallest drift that as many faces with this spread detect with power 0.8.

    curves: (sample, a dimension of `windows.MODES`), NaN where no face was found; a face that was
    not detected at its peak or the end is left out, and `faces` counts the others. Raises
    StepscopeError if the faces that place a peak have no measurement, or fewer than two are left.
    """
    place = axis(curves, "step")
    faces = face_means(curves)
    each, peaks = _falls(faces.mean)
    bounds = interval(each[:, None], lambda means: means[:, 0])
    mean = _mean_curve(faces.mean)
    units = {"units": curves.attrs.get("units", "1")}
    at = place.attrs | {"long_name": "peak of each half's mean curve: " + place.attrs["long_name"]}
    told = {
        "drift": (bounds.estimate, "peak minus end, cross-fitted"),
        "low": (bounds.low, "lower bound of drift"),
        "high": (bounds.high, "upper bound of drift"),
        "plain": (np.nanmax(mean) - mean[-1], "peak minus end"),
        "detectable": (_detectable(each, interval), "smallest drift detectable with power 0.8"),
    }
    return xr.Dataset(
        {
            **{word: ((), value, {"long_name": m, **units}) for word, (value, m) in told.items()},
            "placed": ("half", place.progress[peaks], at),
            "per_face": ("face", each, {"long_name": "drift of each face", **units}),
        },
        coords={"face": faces.faces},
        attrs={
            "mode": place.mode,
            "interval": repr(interval),
            "faces": int(np.isfinite(each).sum()),
            "faces_missing": int(np.isnan(each).sum()),
        },
    )


def _falls(
    faces: Float[np.ndarray, "face point"],
) -> tuple[Float[np.ndarray, "face"], Int[np.ndarray, "half=2"]]:
    """Fall (face,) of each face from the peak of the other half, and both halves' peaks."""
    halves = [_mean_curve(faces[k::2]) if len(faces) > k else np.full(1, np.nan) for k in (0, 1)]
    if any(np.isnan(half).all() for half in halves):
        raise StepscopeError(
            "no drift: no face was detected in the samples that determine the peak"
        )
    peaks = np.array([int(np.nanargmax(half)) for half in halves])
    other = peaks[1 - np.arange(len(faces)) % 2]
    return faces[np.arange(len(faces)), other] - faces[:, -1], peaks


def _detectable(each: Float[np.ndarray, "face"], interval: Interval) -> float:
    """Smallest mean over the measured faces that the t test detects with power 0.8."""
    there = each[np.isfinite(each)]
    if len(there) < 2 or not there.std() > 0:
        return np.nan
    level = getattr(interval, "level", 0.95)
    spread = float(there.std(ddof=1))
    return Design(len(there), 1, spread, 0.0, level).detectable(0.8)


def lift(weak: xr.DataArray, full: xr.DataArray, interval: Interval) -> xr.Dataset:
    """The full adapter minus a weak one in the same cells: `compare(weak, full)`.

    weak, full: (sample, ...), the same quantity under a small adapter scale (the paper's alpha is
    0.25) and the full one.
    """
    return compare(weak, full, interval).assign_attrs(definition="lift: full minus weak adapter")


def lag(
    identity: xr.DataArray,
    other: xr.DataArray,
    estimator: Estimator,
    interval: Interval,
    *,
    against: Against,
    censored_at_start: bool = False,
) -> xr.Dataset:
    """Saturation of another curve (sharpness) minus that of identity, positive where it is later.

    Both curves, on the same points and faces, by the same estimator; a resample takes a face with
    both its curves. In sigma the sign turns: later is lower. NaN where one of the two does not
    saturate; a bound is infinite where one of the two may not saturate, NaN where both may not, or where
    one may not rise. censored_at_start: a curve that starts above its share, or does not rise from its
    start, counts as reaching it at the first point, so that the lag is a lower bound.
    """
    place = axis(identity, against)
    second = axis(other, against)
    if second.mode != place.mode or not np.array_equal(second.progress, place.progress):
        raise StepscopeError("the two curves of a lag are measured at different points")
    if set(cell_keys(identity)) != set(cell_keys(other)):
        raise StepscopeError("the two curves of a lag have different cells: select those of both")
    both = np.stack([face_means(identity).mean, face_means(other).mean], 1)

    def later(means: Float[np.ndarray, "resample 2 point"]) -> Float[np.ndarray, "resample"]:
        curves = [saturation(estimator, means[:, k], place.progress) for k in (0, 1)]
        start = place.progress[0] if censored_at_start else np.nan
        ends = [np.where(c.reason == DOES_NOT_RISE, start, c.position) for c in curves]
        if censored_at_start:
            ends = [np.maximum(end, place.progress[0]) for end in ends]
        with np.errstate(invalid="ignore"):
            return ends[1] - ends[0]

    bounds = interval(both, later)
    ends = place.position(np.array([bounds.low, bounds.high]))
    value = place.position(bounds.estimate)
    units = {"units": place.attrs["units"]}
    return xr.Dataset(
        {
            "lag": ((), np.where(np.isfinite(value), value, np.nan), {"long_name": "lag", **units}),
            "low": ((), ends.min(), {"long_name": "lower bound of the lag", **units}),
            "high": ((), ends.max(), {"long_name": "upper bound of the lag", **units}),
        },
        attrs={
            "mode": place.mode,
            "against": against,
            "estimator": repr(estimator),
            "interval": repr(interval),
            "faces": len(both),
            **too_few(interval, both),
        },
    )


def _mean_curve(faces: Float[np.ndarray, "face point"]) -> Float[np.ndarray, "point"]:
    return weighted_means(np.ones((1, len(faces))), faces)[0]
