"""Latency over pipeline calls: the samples of a call share its wall time, so that a call counts once.

A run's first call is left out where two others remain: in a fresh process it also pays for
allocation, compiled kernels and files not yet in memory, and is no repetition of the others. The
others are taken as free repetitions of one another; that a machine may be slower for minutes, or
another machine, is not in the intervals.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from analysis.evidence import measured

FEWEST = 2
"""Calls without which there is no interval."""
ONE_CALL, NOT_ABOVE_ZERO = "one call", "denominator not above 0"
WITHOUT = "without_interval"
"""Attribute that says why the bounds are NaN."""


class Calls(NamedTuple):
    """Wall time of pipeline calls over their batch size, in seconds an image, all above 0.

    left_out: how many of the run's calls are not among them.
    """

    seconds: Float[np.ndarray, "call"]
    left_out: int = 0


def seconds_an_image(run: xr.Dataset) -> Calls:
    """A run's calls in the order of its samples, without the first one where two others remain.

    Samples of one batch size with the same recorded seconds in every part shared a call: two calls
    do not last the same to the nanosecond. So a call is told even where a resumed run, or an
    experiment's part of a larger run, holds only some of its samples. The first is the one that
    sample 0 was in, which may be cut away: then it is that of samples numbered below their batch
    size. Where a run was resumed is not recorded, so that later processes' first calls count.
    Raises MissingEvidenceError.
    """
    parts = measured(run, "latency_seconds").transpose("sample", "part")
    size, number = parts["batch_size"].values, parts["sample"].values
    told = np.column_stack([np.nan_to_num(parts.values, nan=-1.0), size])
    _, at, call = np.unique(told, axis=0, return_index=True, return_inverse=True)
    kept, lowest = np.sort(at), number.argmin()
    if len(kept) > FEWEST and number[lowest] < size[lowest]:
        kept = kept[kept != at[call.ravel()[lowest]]]
    whole = parts.sel(part="total").values / size
    return Calls(whole[kept], len(at) - len(kept))


def average(calls: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`mean` over calls with Student's interval, in seconds; one call has NaN bounds, and says so."""
    seconds = calls.seconds
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(_squared_error(seconds))
        half = stats.t.ppf((1 + level) / 2, len(seconds) - 1) * error
    mean = float(seconds.mean())
    why = "" if len(seconds) >= FEWEST else ONE_CALL
    return _told("mean", mean, mean - half, mean + half, [calls], why)


def faster(slow: Calls, fast: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`ratio` of the mean of `slow` to the mean of `fast`, from the calls of two runs.

    Fieller's (1954) interval: all ratios at which Welch's t test does not tell slow from ratio x
    fast, its degrees of freedom (Satterthwaite 1946) those at the estimate. NaN bounds where a run
    has one call, or its mean is not above 0 at this level, and then the attribute says which.
    """
    calls = [slow, fast]
    counts = [len(each.seconds) for each in calls]
    a, b = (float(each.seconds.mean()) for each in calls)
    ratio = a / b
    if min(counts) < FEWEST:
        return _told("ratio", ratio, np.nan, np.nan, calls, ONE_CALL)
    above, below = (_squared_error(each.seconds) for each in calls)
    t = _quantile(above, ratio**2 * below, counts, level)
    lead = b**2 - t**2 * below
    if lead <= 0:
        return _told("ratio", ratio, np.nan, np.nan, calls, NOT_ABOVE_ZERO)
    root = t * np.sqrt(max(above * b**2 + below * a**2 - t**2 * above * below, 0.0))
    return _told("ratio", ratio, (a * b - root) / lead, (a * b + root) / lead, calls, "")


def _squared_error(seconds: Float[np.ndarray, "call"]) -> float:
    """Of the mean."""
    return float(seconds.var(ddof=1) / len(seconds)) if len(seconds) > 1 else np.nan


def _quantile(first: float, second: float, calls: list[int], level: float) -> float:
    """Student's, with Satterthwaite's degrees of freedom of a sum of two squared errors."""
    parts = sum(v**2 / (n - 1) for v, n in zip((first, second), calls, strict=True))
    freedom = (first + second) ** 2 / parts if parts > 0 else sum(calls) - 2
    return float(stats.t.ppf((1 + level) / 2, freedom))


def _told(
    word: str, value: float, low: float, high: float, calls: list[Calls], why: str
) -> xr.Dataset:
    units = {"units": "s" if word == "mean" else "1"}
    names = {word: value, "low": low, "high": high}
    return xr.Dataset(
        {name: ((), number, units) for name, number in names.items()},
        attrs={
            "calls": [len(each.seconds) for each in calls],
            "left_out": [each.left_out for each in calls],
            **({WITHOUT: why} if why else {}),
        },
    )
