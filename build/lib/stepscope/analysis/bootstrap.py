"""Intervals over faces: a face is drawn or left out whole, with all its samples.

A study is one array (face, ...) of means per face, and whatever is estimated is a function of the
mean over faces: the smooth-function model, in which resampling theory is worked out (Hall 1992,
The Bootstrap and Edgeworth Expansion, section 2.4).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from stepscope.hooks.errors import StepscopeError

Means = Float[np.ndarray, "resample *rest"]
Statistic = Callable[[Means], Float[np.ndarray, "resample *out"]]
"""From means over faces, one row a resample, to what is estimated, one row a resample.

`inf` and `-inf` are allowed and mean *beyond the measured range*; NaN means *not defined*.
"""


WITHOUT = "without_interval"
"""Attribute of a result that says why its bounds are NaN."""


class Bounds(NamedTuple):
    """Estimate and interval, each (*out); the interval is NaN where it is not defined."""

    estimate: Float[np.ndarray, "*out"]
    low: Float[np.ndarray, "*out"]
    high: Float[np.ndarray, "*out"]


@runtime_checkable
class Interval(Protocol):
    """An interval over faces of a function of their means.

    level: nominal coverage, 0 to 1. fewest: faces without which its bounds are NaN.
    """

    @property
    def level(self) -> float: ...

    @property
    def fewest(self) -> int: ...

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds: ...


def weighted_means(
    weights: Float[np.ndarray, "resample face"], faces: Float[np.ndarray, "face *rest"]
) -> Means:
    """Mean over faces under each row of weights; a face with NaN at an entry is left out."""
    found = np.isfinite(faces)
    total = np.tensordot(weights, np.where(found, faces, 0.0), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / np.tensordot(weights, found.astype(float), 1)


@dataclass(frozen=True)
class ExpandedPercentile:
    """Percentile interval of the cluster bootstrap, its level widened for few clusters.

    The bootstrap's spread is too small by sqrt((n - 1) / n), and its quantiles are normal where t
    would be right; the nominal tail alpha / 2 is therefore replaced by
    Phi(-sqrt(n / (n - 1)) t_{alpha/2, n-1}) (Hesterberg 2015, What Teachers Should Know About the
    Bootstrap: the expanded percentile interval). It stays in the estimate's range, and an infinite
    bound says *not within the run*. It also stays among the faces' own values: of n faces it can hold
    at most 1 - 2^(1 - n), 75 % of 3 and 94 % of 5, so that fewer than `fewest` faces have none.

    level: nominal coverage, 0 to 1. resamples: number of resamples. seed: of their random draw.
    """

    level: float = 0.95
    resamples: int = 1999
    seed: int = 0
    fewest: int = field(default=5, init=False, repr=False)

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        """The interval of `statistic`, NaN for too few faces; raises StepscopeError for none."""
        faces = _measured(faces, 1)
        n = len(faces)
        if n < self.fewest:
            estimate = np.asarray(statistic(weighted_means(np.ones((1, n)), faces))[0])
            return Bounds(estimate, *np.full((2, *estimate.shape), np.nan))
        rng = np.random.default_rng(self.seed)
        # scipy.stats.bootstrap draws the same, but its quantiles turn infinite estimates into NaN.
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=self.resamples).astype(float)
        estimate = statistic(weighted_means(np.ones((1, n)), faces))[0]
        draws = np.sort(statistic(weighted_means(drawn, faces)), 0)  # NaN last
        tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - self.level) / 2, n - 1))
        # Order statistics, not interpolated: a bound may be infinite.
        rank = max(1, int((self.resamples + 1) * tail))
        undefined = np.isnan(draws[-1]) | np.isnan(estimate)
        low, high = (np.where(undefined, np.nan, draws[k]) for k in (rank - 1, -rank))
        return Bounds(estimate, low, high)


@dataclass(frozen=True)
class JackknifeT:
    """Estimate +- t_{m-1} times the jackknife's standard error over faces.

    For a mean this is Student's interval over the means per face, exact for normal faces, whatever
    the correlation within a face (Cameron & Miller 2015, section VI: with few clusters take
    t_{m-1}); for a smooth function of means the jackknife's variance is Efron & Stein's (1981).
    m counts the faces from which the estimate takes a value: one that was not measured at any entry
    that it reads says nothing. One that was measured at some of them counts, for it moves the
    estimate; in simulations that keeps the level, and leaving it out falls to 0.85. Symmetric. NaN
    where a face left out makes the estimate infinite or not defined. Not for estimates with kinks,
    such as a threshold's crossing: `tests/bench/coverage.py` shows it short of its level there.

    level: nominal coverage, 0 to 1.
    """

    level: float = 0.95
    fewest: int = field(default=2, init=False, repr=False)

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        """The interval of `statistic`; raises StepscopeError for fewer than two faces."""
        faces = _measured(faces, 2)
        n = len(faces)
        whole = statistic(weighted_means(np.ones((1, n)), faces))
        left_out = statistic(weighted_means(1 - np.eye(n), faces))
        heard, estimate = _heard(faces, statistic, whole), whole[0]
        m = heard.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            centre = np.where(heard, left_out, 0.0).sum(0) / m
            square = np.where(heard, (left_out - centre) ** 2, 0.0).sum(0)
            half = stats.t.ppf((1 + self.level) / 2, m - 1) * np.sqrt((m - 1) / m * square)
        half = np.where((m == 0) & np.isfinite(estimate), 0.0, half)
        return Bounds(estimate, estimate - half, estimate + half)


def _heard(
    faces: Float[np.ndarray, "face *rest"],
    statistic: Statistic,
    estimate: Float[np.ndarray, "1 *out"],
) -> Bool[np.ndarray, "face *out"]:
    """Which faces an estimate takes a value from: without the entries that they have it is another."""
    means = weighted_means(np.ones((1, len(faces))), faces)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = statistic(np.where(np.isfinite(faces), np.nan, means))
    return ~((without == estimate) | (np.isnan(without) & np.isnan(estimate)))


class OneFace:
    """In place of an interval where only one face was measured: the bounds are NaN."""

    level: float = float("nan")  # of no interval
    fewest: int = 1

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        """The estimate alone; NaN where nothing was measured."""
        estimate = np.asarray(statistic(weighted_means(np.ones((1, len(faces))), faces))[0])
        nothing = np.full(estimate.shape, np.nan)
        return Bounds(estimate, nothing, nothing)

    def __repr__(self) -> str:
        return "OneFace()"


INTERVALS = (ExpandedPercentile, JackknifeT)


def too_few(interval: Interval, faces: Float[np.ndarray, "face *rest"]) -> dict[str, str]:
    """The attribute WITHOUT where an interval needs more faces than these; none where they suffice."""
    need, here = interval.fewest, int(_there(faces).sum())
    return {} if here >= need else {WITHOUT: f"needs {need} faces; here {here}"}


def _there(faces: Float[np.ndarray, "face *rest"]) -> Bool[np.ndarray, "face"]:
    return np.asarray(np.isfinite(faces).reshape(len(faces), -1).any(1))


def _measured(
    faces: Float[np.ndarray, "face *rest"], least: int
) -> Float[np.ndarray, "measured *rest"]:
    measured = faces[_there(faces)]
    if len(measured) < least:
        raise StepscopeError(
            f"an interval over faces needs at least {least} face{'s' * (least > 1)} with "
            f"measurements, got {len(measured)}"
        )
    return measured
