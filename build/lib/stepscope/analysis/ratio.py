"""The ratio of two means, with Fieller's (1954) interval: all ratios that a t test does not reject."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from stepscope.analysis.bootstrap import WITHOUT
from stepscope.hooks.errors import StepscopeError

NOT_ABOVE_ZERO = "denominator not above 0"


def fieller(
    above: float, below: float, variances: tuple[float, float, float], quantile: float
) -> tuple[float, float] | None:
    """Both ends of the interval of above / below; None where `below` does not differ from 0.

    variances: of the two means, and their covariance. quantile: Student's, at the interval's level.
    """
    first, second, joint = (quantile**2 * v for v in variances)
    lead, middle = below**2 - second, above * below - joint
    if lead <= 0:
        return None
    root = np.sqrt(max(middle**2 - lead * (above**2 - first), 0.0))
    return float((middle - root) / lead), float((middle + root) / lead)


def ratio(
    above: Float[np.ndarray, "face"], below: Float[np.ndarray, "face"], *, level: float
) -> xr.Dataset:
    """`ratio`, `low`, `high` of the mean over faces of `above` to that of `below`, paired by face.

    level: nominal coverage, 0 to 1. A face that lacks one of the two is left out; the attribute `faces`
    counts the others. The bounds are NaN, and an attribute says why, for fewer than two faces and where
    the denominator is not above 0 at this level. Raises StepscopeError where no face has both.
    """
    both = np.isfinite(above) & np.isfinite(below)
    above, below, n = above[both], below[both], int(both.sum())
    if not n:
        raise StepscopeError("no ratio: no face has both values")
    one, other = float(above.mean()), float(below.mean())
    value, why = one / other if other else np.nan, f"needs 2 faces; here {n}"
    ends = None
    if n > 1:
        (a, joint), (_, b) = np.cov(above, below) / n
        ends = fieller(one, other, (a, b, joint), float(stats.t.ppf((1 + level) / 2, n - 1)))
        ends, why = (ends, "") if ends and other > 0 else (None, NOT_ABOVE_ZERO)
    low, high = ends or (np.nan, np.nan)
    return xr.Dataset(
        {
            word: ((), number, {"units": "1"})
            for word, number in (("ratio", value), ("low", low), ("high", high))
        },
        attrs={
            "faces": n,
            "level": level,
            "interval": "Fieller",
            **({WITHOUT: why} if why else {}),
        },
    )
