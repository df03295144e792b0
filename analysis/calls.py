"""Latency over pipeline calls: the samples of a call share its wall time, so that a call counts once.

A run's first call is no repetition of the others where it was cold: in a fresh process it also pays
for allocation, compiled kernels and files not yet in memory. Nor is a call of another batch size,
whose seconds an image are others. What is left may go together, slow minutes and fast ones: the
intervals count calls by how many free ones they are worth. That another day or another machine is
slower is not in them.
"""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy import stats

from analysis.bootstrap import WITHOUT
from analysis.lookup import measured
from analysis.ratio import NOT_ABOVE_ZERO, fieller

FEWEST = 2
"""Calls without which there is no interval."""
TOO_FEW = "one call: too few to quote"


class Calls(NamedTuple):
    """Wall time of pipeline calls over their batch size, in seconds an image, all above 0.

    cold, odd: how many of the run's calls are not among them, as the first of a process or as of
    another batch size.
    """

    seconds: Float[np.ndarray, "call"]
    cold: int = 0
    odd: int = 0


def seconds_an_image(run: xr.Dataset) -> Calls:
    """A run's calls that repeat one another, in the order of its samples.

    They are of the batch size that the most calls after the first have, the larger of two. A run of
    one call keeps that one. A call is told by the coordinate `call`; in runs that lack it, samples of
    one batch size with the same recorded seconds in every part shared a call: two calls do not last
    the same to the nanosecond. So it is told even where a resumed run, or an experiment's part of a
    larger run, holds only some of its samples. The first is the one that sample 0 was in, which may
    be cut away. Where a run was resumed is not recorded, so that later processes' first calls count.
    Raises MissingEvidenceError.
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
    """Where in the samples each call is first met, in their order."""
    if "call" in parts.coords:
        return np.sort(np.unique(parts["call"].values, return_index=True)[1])
    told = np.column_stack([np.nan_to_num(parts.values, nan=-1.0), parts["batch_size"].values])
    return np.sort(np.unique(told, axis=0, return_index=True)[1])


def _first(number: np.ndarray, size: np.ndarray) -> Bool[np.ndarray, "call"]:
    """Whether each call is the run's first: the lowest, of samples below its batch size."""
    return (number == number.min()) & (number < size)


def average(calls: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`mean` over calls in seconds, with Student's interval for as many calls as they are worth.

    One call has NaN bounds, and says so.
    """
    mean, spread = float(calls.seconds.mean()), _spread(calls)
    half = _quantile([spread], [1.0], level) * np.sqrt(spread.square)
    why = "" if len(calls.seconds) >= FEWEST else TOO_FEW
    return _told("mean", mean, mean - half, mean + half, [calls], why)


def faster(slow: Calls, fast: Calls, *, level: float = 0.95) -> xr.Dataset:
    """`ratio` of the mean of `slow` to the mean of `fast`, from the calls of two runs.

    Fieller's (1954) interval: all ratios at which Welch's t test does not tell slow from ratio x
    fast, its degrees of freedom (Satterthwaite 1946) those at the estimate. NaN bounds where a run
    has one call, or its mean is not above 0 at this level, and then the attribute says which.
    """
    calls = [slow, fast]
    a, b = (float(each.seconds.mean()) for each in calls)
    spreads = [_spread(each) for each in calls]
    if min(len(each.seconds) for each in calls) < FEWEST:
        return _told("ratio", a / b, np.nan, np.nan, calls, TOO_FEW)
    t = _quantile(spreads, [1.0, (a / b) ** 2], level)
    ends = fieller(a, b, (spreads[0].square, spreads[1].square, 0.0), t)
    low, high = ends or (np.nan, np.nan)
    return _told("ratio", a / b, low, high, calls, "" if ends else NOT_ABOVE_ZERO)


class Spread(NamedTuple):
    """Squared error of a mean over calls, and how many free calls they are worth."""

    square: float
    worth: float


def _spread(calls: Calls) -> Spread:
    """By the correlation of neighbouring calls r, taken as r^k between calls that are k apart.

    r is the sample's own, with its bias of about (1 + 3 r) / n taken back (Kendall 1954), between 0
    and .95; the variance, which correlated calls make too small, is corrected by the same r.
    """
    x, n = calls.seconds, len(calls.seconds)
    if n < FEWEST:
        return Spread(np.nan, float(n))
    apart = x - x.mean()
    total = float((apart**2).sum())
    r = float((apart[1:] * apart[:-1]).sum() / total) if total > 0 and n > FEWEST else 0.0
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


def _told(
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
