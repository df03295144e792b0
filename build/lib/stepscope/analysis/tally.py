"""Count of the intervals that a report computes; identical ones count once."""

from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Float

from stepscope.analysis.bootstrap import Bounds, Interval, Statistic


class Tally:
    """The set of computed intervals, by kind and ends."""

    def __init__(self) -> None:
        self._intervals: set[tuple[str, float, float]] = set()

    def add(self, kind: str, low: Any, high: Any) -> None:
        """Add each pair of ends (any shape); a pair with NaN is no interval.

        kind: name of the method. low, high: ends of the same shape.
        """
        for ends in zip(np.ravel(low).tolist(), np.ravel(high).tolist(), strict=True):
            if not np.isnan(ends).any():
                self._intervals.add((kind, *ends))

    def counts(self) -> dict[str, int]:
        """Number of distinct intervals of each kind."""
        return dict(Counter(kind for kind, _, _ in sorted(self._intervals)))

    def of(self, interval: Interval) -> Interval:
        """The same interval method, whose results are added to the tally."""
        return _Counted(interval, self)


class _Counted:
    def __init__(self, interval: Interval, tally: Tally) -> None:
        self._interval, self._tally = interval, tally

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        bounds = self._interval(faces, statistic)
        self._tally.add(type(self._interval).__name__, bounds.low, bounds.high)
        return bounds

    @property
    def level(self) -> float:
        return self._interval.level

    @property
    def fewest(self) -> int:
        return self._interval.fewest

    def __repr__(self) -> str:
        return repr(self._interval)
