"""Latency over pipeline calls: the samples of a call share its wall time, so that a call counts once.

The first call of a process is left out: it includes allocation, compilation of kernels and reading of
files. So is a call of another batch size, whose seconds an image differ. The remaining calls may be
correlated, because a machine is slower in some minutes: the intervals use the effective number of
independent calls. They do not include differences between days or machines.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy import stats

from stepscope.analysis.bootstrap import WITHOUT
from stepscope.analysis.lookup import measured
from stepscope.analysis.ratio import NOT_ABOVE_ZERO, fieller

FEWEST = 2
"""Smallest number of calls with an interval."""
TOO_FEW = "one call: too few to quote"


class Calls(NamedTuple):
    """Wall time of pipeline calls over their batch size, in seconds an image, all above 0.

    cold, odd: numbers of calls that are left out, as the first of a process and as of another batch size.
    """

    seconds: Float[np.ndarray, "call"]
    cold: int = 0
    odd: int = 0


def seconds_an_image(run: xr.Dataset) -> Calls:
    """A run's comparable calls, in the order of its samples.

    They have the most frequent batch size among the calls after the first; of two, the larger one. A run
    of one call keeps that call. The coordinate `call` identifies a call; in runs without it, samples of
    one batch size with identical seconds in every part belong to one call, since two calls never take the
    same number of nanoseconds. This also holds where only some samples of a call are present. The first
    call is that of sample 0, which may be missing here. A resumed run does not record where it resumed,
    so that the first calls of later processes are included. Raises MissingEvidenceError for a run whose
    latency was not measured.
    """
    parts = measured(run, "latency_seconds").transpose("sample", "part").sortby("sample")
    at = _calls(parts)
    size, number = parts["batch_size"].values[at], parts["sample"].values[at]
    seconds = parts.sel(part="total").values[at] / size
    first = parts["call"].values[at] == 0 if "call" in parts.coords else _first(number, size)
    if first.all():
        return Calls(seconds)
    sizes, counts = np.unique(size[~first], return_counts=True)
    kept = ~first & (size == sizes[counts == counts.max()].max())
    return Calls(seconds[kept], int(first.sum()), int((~first & ~kept).sum()))


def _calls(parts: xr.DataArray) -> Int[np.ndarray, "call"]:
    """Index of the first sample of each call, ascending."""
    if "call" in parts.coords:
        return np.sort(np.unique(parts["call"].values, return_index=True)[1])
    keys = np.column_stack([np.nan_to_num(parts.values, nan=-1.0), parts["batch_size"].values])
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])


def _first(number: np.ndarray, size: np.ndarray) -> Bool[np.ndarray, "call"]:
    """Whether each call is the run's first: the lowest, of samples below its batch size."""
    return (number == number.min()) & (number < size)


def average(calls: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`mean` over calls in seconds, with Student's interval at the effective number of calls.

    level: nominal coverage, 0 to 1. One call has NaN bounds, and an attribute says why.
    """
    mean, spread = float(calls.seconds.mean()), _spread(calls)
    half = _quantile([spread], [1.0], level) * np.sqrt(spread.square)
    why = "" if len(calls.seconds) >= FEWEST else TOO_FEW
    return _dataset("mean", mean, mean - half, mean + half, [calls], why)


def faster(slow: Calls, fast: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`ratio` of the mean of `slow` to the mean of `fast`, from the calls of two runs.

    Fieller's (1954) interval: all ratios at which Welch's t test finds no difference between slow and
    ratio x fast, with the degrees of freedom (Satterthwaite 1946) at the estimate. The bounds are NaN, and
    an attribute says why, where a run has one call or its mean is not above 0 at this level.
    """
    calls = [slow, fast]
    a, b = (float(each.seconds.mean()) for each in calls)
    spreads = [_spread(each) for each in calls]
    if min(len(each.seconds) for each in calls) < FEWEST:
        return _dataset("ratio", a / b, np.nan, np.nan, calls, TOO_FEW)
    t = _quantile(spreads, [1.0, (a / b) ** 2], level)
    ends = fieller(a, b, (spreads[0].square, spreads[1].square, 0.0), t)
    low, high = ends or (np.nan, np.nan)
    return _dataset("ratio", a / b, low, high, calls, "" if ends else NOT_ABOVE_ZERO)


def saved(slow: Calls, fast: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`mean`, how many seconds an image the mean of `fast` is below that of `slow`, with Welch's interval.

    The bounds are NaN, and an attribute says why, where a run has one call.
    """
    calls = [slow, fast]
    mean, spreads = float(slow.seconds.mean() - fast.seconds.mean()), [_spread(c) for c in calls]
    if min(len(each.seconds) for each in calls) < FEWEST:
        return _dataset("mean", mean, np.nan, np.nan, calls, TOO_FEW)
    error = np.sqrt(sum(spread.square for spread in spreads))
    half = _quantile(spreads, [1.0, 1.0], level) * error
    return _dataset("mean", mean, mean - half, mean + half, calls, "")


class Spread(NamedTuple):
    """Squared standard error of a mean over calls, and the effective number of independent calls."""

    square: float
    worth: float


def _spread(calls: Calls) -> Spread:
    """From the correlation r of neighbouring calls, with r^k between calls that are k apart.

    r is the sample's, corrected for its bias of about (1 + 3 r) / n (Kendall 1954) and limited to 0 to
    0.95; the same r corrects the variance, which is too small for correlated calls.
    """
    x, n = calls.seconds, len(calls.seconds)
    if n < FEWEST:
        return Spread(np.nan, float(n))
    deviation = x - x.mean()
    total = float((deviation**2).sum())
    r = float((deviation[1:] * deviation[:-1]).sum() / total) if total > 0 and n > FEWEST else 0.0
    r = float(np.clip(r + (1 + 3 * r) / n, 0.0, 0.95)) if n > FEWEST else 0.0
    k = np.arange(1, n)
    factor = 1 + 2 * float(((1 - k / n) * r**k).sum())  # n times the variance of the mean
    variance = total / max(n - factor, n / 5)
    return Spread(variance * factor / n, n / factor)


def _quantile(spreads: list[Spread], weights: list[float], level: float) -> float:
    """Student's, with Satterthwaite's degrees of freedom of a weighted sum of squared errors."""
    squares = [w * s.square for w, s in zip(weights, spreads, strict=True)]
    free = [max(s.worth - 1, 1.0) for s in spreads]
    parts = sum(v**2 / f for v, f in zip(squares, free, strict=True))
    freedom = sum(squares) ** 2 / parts if parts > 0 else sum(free)
    return float(stats.t.ppf((1 + level) / 2, freedom))


def _dataset(
    word: str, value: float, low: float, high: float, calls: list[Calls], why: str
) -> xr.Dataset:
    units = {"units": "s" if word == "mean" else "1"}
    names = {word: value, "low": low, "high": high}
    return xr.Dataset(
        {name: ((), number, units) for name, number in names.items()},
        attrs={
            "calls": [len(each.seconds) for each in calls],
            "worth": [_spread(each).worth for each in calls],
            "cold": [each.cold for each in calls],
            "odd": [each.odd for each in calls],
            **({WITHOUT: why} if why else {}),
        },
    )
