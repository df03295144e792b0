"""A number as tables print it: with its interval, or with the reason why there is none."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stepscope.analysis.bootstrap import WITHOUT

ABSENT, ONE_FACE = "not measured", "one face"


@dataclass(frozen=True)
class Number:
    """A value and its interval; NaN where they are not defined, e.g. the bounds of a single face.

    digits: after the decimal point. interval: whether to print the bounds. why: printed in the brackets
    where there are no bounds.
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
        brackets = self.why if np.isnan([self.low, self.high]).any() else bounds
        return f"{text} [{brackets}]"


def _rounded(value: float, digits: int) -> str:
    """The value to so many digits, without a minus sign where it rounds to 0."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


Entry = Number | str
