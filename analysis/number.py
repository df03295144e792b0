"""A number as it is printed: with its interval, or with the reason why there is none."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.bootstrap import WITHOUT

ABSENT, ONE_FACE = "not measured", "one face"


@dataclass(frozen=True)
class Number:
    """A value and its interval; NaN where it is not defined (no face, or one face for the bounds).

    why: what stands in the brackets where there are no bounds.
    """

    value: float
    low: float = np.nan
    high: float = np.nan
    digits: int = 3
    interval: bool = True
    why: str = "–"

    @classmethod
    def of(cls, found: xr.Dataset, word: str, digits: int = 3) -> "Number":
        """Variable `word` of a result with `low` and `high`."""
        value, low, high = (float(found[name]) for name in (word, "low", "high"))
        return cls(value, low, high, digits, why=found.attrs.get(WITHOUT, "–"))

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "–"
        text = _rounded(self.value, self.digits)
        if not self.interval:
            return text
        ends = {-np.inf: "before the first", np.inf: "after the last"}
        bounds = ", ".join(ends.get(b) or _rounded(b, self.digits) for b in (self.low, self.high))
        told = self.why if np.isnan([self.low, self.high]).any() else bounds
        return f"{text} [{told}]"


def _rounded(value: float, digits: int) -> str:
    """Without the sign of what rounds to 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


Entry = Number | str
