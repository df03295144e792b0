"""Drift, lift and lag: derived from curves, by definitions of ours where the paper gives none."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.bootstrap import Interval, weighted_means
from analysis.cells import cell_keys, face_means
from analysis.compare import compare
from analysis.saturation import Estimator
from analysis.windows import Against, axis, saturation
from hooks.errors import StepscopeError


def drift(curves: xr.DataArray, interval: Interval) -> xr.Dataset:
    """Peak of the mean curve minus its endpoint, positive where the curve falls after its peak.

    The peak of a noisy curve is too high, so the plain difference (`plain`) is biased upwards and
    above zero even where nothing drifts; leaving out one face at a time does not cure its interval.
    `drift` is split over faces, our definition: every other face, in the order of their names,
    places the peak (`peak`), and the rest, with `low` and `high`, say how far the curve falls from
    there. With n faces the interval has the width of n / 2, and it speaks of the peak that is
    named: where neighbouring steps are close, the population's own peak may be a little higher, and
    a nominal 95 holds that one in 93 of 100 studies.

    curves: (sample, step) or (sample, budget), NaN where no face was found; a face that was not
    detected at the peak or the end is left out, and `faces` counts the others. Raises StepscopeError
    if the faces that place the peak have no measurement, or fewer than two faces are left.
    """
    place = axis(curves, "step")
    faces = face_means(curves)
    placing = _mean_curve(faces.mean[::2])
    if np.isnan(placing).all():
        raise StepscopeError("no drift: the faces that place the peak were never detected")
    peak = int(np.nanargmax(placing))
    each = faces.mean[1::2, peak] - faces.mean[1::2, -1]
    bounds = interval(each[:, None], lambda means: means[:, 0])
    mean = _mean_curve(faces.mean)
    units = {"units": curves.attrs.get("units", "1")}
    at = place.attrs | {"long_name": "peak of the mean curve: " + place.attrs["long_name"]}
    return xr.Dataset(
        {
            "drift": ((), bounds.estimate, {"long_name": "peak minus end, split", **units}),
            "low": ((), bounds.low, {"long_name": "lower bound of drift", **units}),
            "high": ((), bounds.high, {"long_name": "upper bound of drift", **units}),
            "plain": ((), np.nanmax(mean) - mean[-1], {"long_name": "peak minus end", **units}),
            "peak": ((), place.progress[peak], at),
            "per_face": ("face", each, {"long_name": "drift of each face", **units}),
        },
        coords={"face": faces.faces[1::2]},
        attrs={
            "mode": place.mode,
            "interval": repr(interval),
            "faces": int(np.isfinite(each).sum()),
            "faces_missing": int(np.isnan(each).sum()),
            "faces_placing_the_peak": len(faces.faces[::2]),
        },
    )


def lift(weak: xr.DataArray, full: xr.DataArray, interval: Interval) -> xr.Dataset:
    """What the full adapter gives over a weak one in the same cell: `compare(weak, full)`.

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
) -> xr.Dataset:
    """Saturation of another curve (sharpness) minus that of identity, positive where it is later.

    Both curves, on the same points and faces, by the same estimator; a resample takes a face with
    both its curves. In sigma the sign turns: later is lower. NaN where one of the two does not
    saturate; a bound is infinite where one of the two may not saturate, NaN where both may not.
    """
    place = axis(identity, against)
    second = axis(other, against)
    if second.mode != place.mode or not np.array_equal(second.progress, place.progress):
        raise StepscopeError("the two curves of a lag are measured at different points")
    if set(cell_keys(identity)) != set(cell_keys(other)):
        raise StepscopeError("the two curves of a lag have different cells: select those of both")
    both = np.stack([face_means(identity).mean, face_means(other).mean], 1)

    def later(means: Float[np.ndarray, "resample 2 point"]) -> Float[np.ndarray, "resample"]:
        ends = [saturation(estimator, means[:, k], place.progress).position for k in (0, 1)]
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
        },
    )


def _mean_curve(faces: Float[np.ndarray, "face point"]) -> Float[np.ndarray, "point"]:
    return weighted_means(np.ones((1, len(faces))), faces)[0]
