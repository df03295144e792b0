"""How many intervals a report holds: each is counted where it is made, the same one once."""

from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Float

from analysis.bootstrap import Bounds, Interval, Statistic


class Tally:
    """Every interval that was made, by kind and ends."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, float, float]] = set()

    def add(self, kind: str, low: Any, high: Any) -> None:
        """Count every pair of ends that is one; NaN is none."""
        for ends in zip(np.ravel(low).tolist(), np.ravel(high).tolist(), strict=True):
            if not np.isnan(ends).any():
                self._seen.add((kind, *ends))

    def counts(self) -> dict[str, int]:
        """Number of different intervals of each kind."""
        return dict(Counter(kind for kind, _, _ in sorted(self._seen)))

    def of(self, interval: Interval) -> Interval:
        """The same interval, counted whenever it is used."""
        return _Counted(interval, self)


class _Counted:
    def __init__(self, interval: Interval, tally: Tally) -> None:
        self._interval, self._tally = interval, tally

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        found = self._interval(faces, statistic)
        self._tally.add(type(self._interval).__name__, found.low, found.high)
        return found

    @property
    def level(self) -> float:
        return self._interval.level

    @property
    def fewest(self) -> int:
        return self._interval.fewest

    def __repr__(self) -> str:
        return repr(self._interval)
