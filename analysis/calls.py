"""Latency over pipeline calls: the samples of a call share its wall time, so that a call counts once.

Calls are taken as free repetitions of one another; that a machine may be slower for minutes, or
another machine, is not in the intervals.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from analysis.evidence import measured

Calls = Float[np.ndarray, "call"]
ONE_CALL, NOT_ABOVE_ZERO = "one call", "denominator not above 0"
WITHOUT = "without_interval"
"""Attribute that says why the bounds are NaN."""


def seconds_an_image(run: xr.Dataset) -> Calls:
    """Wall time of each pipeline call over its batch size, in the order of the run's samples.

    Samples of one batch size with the same recorded seconds in every part shared a call: two calls
    do not last the same to the nanosecond. So a call is told even where a resumed run, or an
    experiment's part of a larger run, holds only some of its samples. Raises MissingEvidenceError.
    """
    parts = measured(run, "latency_seconds").transpose("sample", "part")
    size = parts["batch_size"].values
    told = np.column_stack([np.nan_to_num(parts.values, nan=-1.0), size])
    first = np.sort(np.unique(told, axis=0, return_index=True)[1])
    whole = parts.sel(part="total").values / size
    return whole[first]


def average(seconds: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`mean` over calls with Student's interval, in seconds; one call has NaN bounds, and says so."""
    calls = len(seconds)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(_squared_error(seconds))
        half = stats.t.ppf((1 + level) / 2, calls - 1) * error
    mean = float(seconds.mean())
    return _told("mean", mean, mean - half, mean + half, [calls], "" if calls > 1 else ONE_CALL)


def faster(slow: Calls, fast: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`ratio` of the mean of `slow` to the mean of `fast`, from the calls of two runs.

    Fieller's (1954) interval: all ratios at which Welch's t test does not tell slow from ratio x
    fast, its degrees of freedom (Satterthwaite 1946) those at the estimate. NaN bounds where a run
    has one call, or its mean is not above 0 at this level, and then the attribute says which.
    """
    ratio = float(slow.mean() / fast.mean())
    calls = [len(slow), len(fast)]
    if min(calls) < 2:
        return _told("ratio", ratio, np.nan, np.nan, calls, ONE_CALL)
    above, below = _squared_error(slow), _squared_error(fast)
    t = _quantile(above, ratio**2 * below, calls, level)
    a, b = slow.mean(), fast.mean()
    lead = b**2 - t**2 * below
    if lead <= 0:
        return _told("ratio", ratio, np.nan, np.nan, calls, NOT_ABOVE_ZERO)
    root = t * np.sqrt(max(above * b**2 + below * a**2 - t**2 * above * below, 0.0))
    return _told("ratio", ratio, (a * b - root) / lead, (a * b + root) / lead, calls, "")


def _squared_error(seconds: Calls) -> float:
    """Of the mean."""
    return float(seconds.var(ddof=1) / len(seconds)) if len(seconds) > 1 else np.nan


def _quantile(first: float, second: float, calls: list[int], level: float) -> float:
    """Student's, with Satterthwaite's degrees of freedom of a sum of two squared errors."""
    parts = sum(v**2 / (n - 1) for v, n in zip((first, second), calls, strict=True))
    freedom = (first + second) ** 2 / parts if parts > 0 else sum(calls) - 2
    return float(stats.t.ppf((1 + level) / 2, freedom))


def _told(
    word: str, value: float, low: float, high: float, calls: list[int], why: str
) -> xr.Dataset:
    units = {"units": "s" if word == "mean" else "1"}
    names = {word: value, "low": low, "high": high}
    return xr.Dataset(
        {name: ((), number, units) for name, number in names.items()},
        attrs={"calls": calls, **({WITHOUT: why} if why else {})},
    )
