"""The early effective window: where a mean curve saturates, with an interval.

A curve has one of three modes. *Trajectory*: dimension `step`, the estimate x0 along one run. *Budget*:
dimension `budget`, the endpoints of whole runs, one for each number of steps. *Committed*: dimension
`adapter_steps`, the endpoints of runs whose adapter is off from that step on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from stepscope.analysis.bootstrap import Bounds, Interval, too_few, weighted_means
from stepscope.analysis.cells import face_means
from stepscope.analysis.ratio import ratio
from stepscope.analysis.saturation import (
    REASONS,
    Estimator,
    ExponentialApproach,
    Saturation,
    ShareOfPlateau,
)
from stepscope.hooks.errors import StepscopeError

MODES = {"step": "trajectory", "budget": "budget", "adapter_steps": "committed"}
"""Dimension of the curve, and the mode that it stands for."""
Against = Literal["step", "sigma", "log_snr"]


@dataclass(frozen=True, eq=False)
class Axis:
    """The coordinate that a curve is read against, and the mode of its points.

    progress: (point), strictly increasing in time; the coordinate, or minus it for sigma.
    """

    mode: str
    against: Against
    progress: Float[np.ndarray, "point"]

    def position(self, progress: np.ndarray | np.floating) -> np.ndarray | np.floating:
        """Back from progress to the coordinate."""
        return -progress if self.against == "sigma" else progress

    @property
    def attrs(self) -> dict[str, str]:
        """Unit and meaning of a position on this axis."""
        meaning = {
            ("trajectory", "step"): (
                "step",
                "step of one run; 0 is the first",
            ),
            ("budget", "step"): ("steps", "number of steps of a whole run"),
            ("trajectory", "sigma"): ("1", "noise level sigma at the start of the step"),
            ("trajectory", "log_snr"): ("1", "log-SNR at the start of the step"),
            ("budget", "sigma"): ("1", "noise level sigma of the whole run's last step"),
            ("committed", "step"): ("steps", "number of steps that had the adapter"),
            ("committed", "sigma"): ("1", "noise level sigma from which the adapter is off"),
        }
        units, long_name = meaning[self.mode, self.against]
        return {"units": units, "long_name": long_name}


def axis(curves: xr.DataArray, against: Against) -> Axis:
    """The axis of curves (sample, a dimension of MODES), against its own coordinate, sigma or log-SNR.

    Raises StepscopeError for a mixture of modes (both dimensions, or trajectories of runs with
    different numbers of steps, coordinate `steps`), further dimensions, and a coordinate that is
    missing, differs between samples, or does not advance at every point.
    """
    dims = [d for d in MODES if d in curves.dims]
    if len(dims) != 1 or set(curves.dims) != {"sample", *dims}:
        raise StepscopeError(
            f"a curve has dimensions ('sample', 'step'), ('sample', 'budget') or ('sample', "
            f"'adapter_steps'), got {curves.dims}"
        )
    dim = dims[0]
    counts = np.unique(curves["steps"].values) if "steps" in curves.coords else np.array([])
    if dim == "step" and len(counts) > 1:
        raise StepscopeError(
            f"trajectories of runs with {', '.join(map(str, counts))} steps are mixed: select one, "
            "or put their endpoints on a dimension 'budget'"
        )
    word = dim if against == "step" else against
    if word not in curves.coords or curves[word].dims != (dim,):
        raise StepscopeError(f"the curve has no coordinate {word!r} on {dim!r} alone")
    values = curves[word].values.astype(float)
    progress = -values if against == "sigma" else values
    if not np.isfinite(values).all():
        raise StepscopeError(f"{word!r} must be finite at every point of the curve, got {values}")
    if not (np.diff(progress) > 0).all():
        way = "fall" if against == "sigma" else "rise"
        raise StepscopeError(f"{word!r} must {way} at every point of the curve, got {values}")
    return Axis(MODES[dim], against, progress)


def saturation(
    estimator: Estimator, y: Float[np.ndarray, "curve point"], x: Float[np.ndarray, "point"]
) -> Saturation:
    """Apply an estimator to curves with gaps, each read at its measured points (not NaN) alone."""
    found = np.isfinite(y)
    if found.all():
        return estimator(y, x)
    position, reason = np.empty(len(y)), np.empty(len(y), int)
    patterns, which = np.unique(found, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        rows = which.ravel() == k
        position[rows], reason[rows] = estimator(y[rows][:, pattern], x[pattern])
    return Saturation(position, reason)


def window(
    curves: xr.DataArray, estimator: Estimator, interval: Interval, *, against: Against
) -> xr.Dataset:
    """Position at which the mean curve saturates: the end of the early effective window.

    curves: (sample, a dimension of MODES) with face, prompt, seed on `sample`; NaN is *no face found*
    and left out of the mean (over faces of the mean over their samples). Variables: `position` on the
    axis, NaN where the curve does not saturate or had done so before its first point, with `reason`;
    `low` and `high`, infinite where the interval reaches beyond the points, NaN for too few faces;
    `detected`, samples in the mean at each point. A resample that does not saturate counts as later
    than the last point, one that starts above as earlier than the first.
    """
    place = axis(curves, against)
    faces = face_means(curves)
    bounds = interval(faces.mean, lambda y: saturation(estimator, y, place.progress).position)
    whole = weighted_means(np.ones((1, len(faces.faces))), faces.mean)
    reason = REASONS[saturation(estimator, whole, place.progress).reason[0]]
    dim = next(word for word, mode in MODES.items() if mode == place.mode)
    result = _positions(bounds, place)
    result["reason"] = xr.DataArray(reason, attrs={"long_name": "why there is no position"})
    result["detected"] = xr.DataArray(
        faces.detected.sum(0),
        coords=curves[dim].coords,
        dims=dim,
        attrs={"units": "1", "long_name": "samples in the mean curve"},
    )
    return result.assign_coords(estimator=repr(estimator)).assign_attrs(
        mode=place.mode,
        against=against,
        interval=repr(interval),
        faces=len(faces.faces),
        samples=curves.sizes["sample"],
        **too_few(interval, faces.mean),
    )


def plateau(curves: xr.DataArray, *, against: Against, level: float = 0.95) -> xr.Dataset:
    """`share`, with bounds, of its whole rise by which a curve rises in its last quarter.

    The rise of the last quarter of the axis by the least-squares line through its points (at least
    three), over that line's end minus the first point; both means over faces, their ratio with
    Fieller's interval. A straight line has 0.25; 1 - exp(-x / tau) with tau of a seventh of the axis has
    0.006. The bounds are NaN where no rise of the curve is shown. A face without the first or one of
    the last points is left out.
    """
    x = axis(curves, against).progress
    faces = face_means(curves).mean
    last = x >= x[-1] - (x[-1] - x[0]) / 4
    last[-3:] = True
    t, y = x[last] - x[last].mean(), faces[:, last]
    slope = y @ t / (t @ t)
    end = y.mean(1) + slope * t[-1]
    found = ratio(slope * (x[-1] - x[0]) / 4, end - faces[:, 0], level=level)
    return found.rename(ratio="share")


def windows(
    curves: xr.DataArray, estimators: Sequence[Estimator], interval: Interval, *, against: Against
) -> xr.Dataset:
    """`window` by several estimators, along a dimension `estimator`."""
    each = [window(curves, e, interval, against=against) for e in estimators]
    return xr.concat(each, "estimator", data_vars="all", combine_attrs="drop_conflicts")


def sensitivity(
    curves: xr.DataArray,
    estimator: ShareOfPlateau | ExponentialApproach,
    shares: Sequence[float] | np.ndarray,
    interval: Interval,
    *,
    against: Against,
) -> xr.Dataset:
    """`window` for several shares of the plateau, along a dimension `share`."""
    each = [window(curves, replace(estimator, share=s), interval, against=against) for s in shares]
    share = xr.IndexVariable("share", list(shares))
    result = xr.concat(each, share, data_vars="all", combine_attrs="drop_conflicts")
    result["share"].attrs = {"units": "1", "long_name": "share of the plateau"}
    return result


def _positions(bounds: Bounds, place: Axis) -> xr.Dataset:
    ends = place.position(np.array([bounds.low, bounds.high]))
    position = place.position(bounds.estimate)
    attrs = place.attrs
    return xr.Dataset(
        {
            "position": ((), np.where(np.isfinite(position), position, np.nan), attrs),
            "low": ((), ends.min(), {**attrs, "long_name": "lower bound: " + attrs["long_name"]}),
            "high": ((), ends.max(), {**attrs, "long_name": "upper bound: " + attrs["long_name"]}),
        }
    )
