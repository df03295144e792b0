"""How often an interval holds a known value: a quantity, simulated studies of it, and their intervals."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from stepscope.analysis.bootstrap import (
    Bounds,
    ExpandedPercentile,
    Interval,
    Statistic,
    weighted_means,
)

Ends = Float[np.ndarray, "end=2 study"]
"""Lower and upper ends of the intervals of many simulated studies."""
Random = np.random.Generator
SimulateMany = Callable[[Random, int, Interval, int], Ends]
"""From generator, faces, interval and number of studies to the ends of their intervals."""
SimulateOne = Callable[[Random, int, Interval], xr.Dataset]
"""From generator, faces and interval to `low` and `high` of one study."""


@dataclass(frozen=True)
class Percentile(ExpandedPercentile):
    """The common percentile interval of the cluster bootstrap over faces, for comparison."""

    resamples: int = 999
    fewest: int = field(default=2, init=False, repr=False)

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        """The interval of `statistic`."""
        n, rng = len(faces), np.random.default_rng(self.seed)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=self.resamples).astype(float)
        draws = np.sort(statistic(weighted_means(drawn, faces)), 0)
        rank = int((self.resamples + 1) * (1 - self.level) / 2)
        estimate = statistic(weighted_means(np.ones((1, n)), faces))[0]
        return Bounds(estimate, draws[rank - 1], draws[-rank])


@dataclass(frozen=True)
class Case:
    """A quantity with a known value: `ends` simulates studies and returns their intervals.

    truth: the known value. interval: the recommended one. The number of faces and the interval are
    arguments of `ends`, so that a table can vary them; for latency the first argument counts calls, and
    the first call is cold. interval_name: set for a quantity with an interval of its own, which takes
    only the level from `interval`. usual: name and simulation of the common alternative on the same
    draws; None where that is the percentile bootstrap.
    """

    name: str
    truth: float
    interval: Interval
    ends: SimulateMany
    interval_name: str = ""
    usual: tuple[str, SimulateMany] | None = None

    def coverage(self, interval: Interval, *, faces: int, studies: int) -> float:
        """Share of `studies` whose interval holds the truth, 0 to 1; the seed is fixed."""
        return float(self.covers(interval, faces=faces, studies=studies).mean())

    def covers(
        self, interval: Interval, *, faces: int, studies: int, usual: bool = False
    ) -> Bool[np.ndarray, "study"]:
        """Whether each study's interval holds the truth; the draws are the same for every interval.

        usual: use the common alternative, where the case names one.
        """
        ends = self.usual[1] if usual and self.usual else self.ends
        low, high = ends(np.random.default_rng(faces), faces, interval, studies)
        return (low <= self.truth) & (self.truth <= high)


def case_of_one(
    name: str,
    truth: float,
    interval: Interval,
    study: SimulateOne,
    interval_name: str = "",
    usual: tuple[str, SimulateOne] | None = None,
) -> Case:
    """A case whose estimator takes one study at a time."""
    alternative = None if usual is None else (usual[0], _repeat(usual[1]))
    return Case(name, truth, interval, _repeat(study), interval_name, alternative)


def _repeat(study: SimulateOne) -> SimulateMany:
    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        bounds = [study(rng, faces, interval) for _ in range(studies)]
        return np.array([[one["low"].item(), one["high"].item()] for one in bounds]).T

    return ends
