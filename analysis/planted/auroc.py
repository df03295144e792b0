"""How well scores tell planted places from the others: the area under the ROC curve."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from stepscope.analysis.bootstrap import Bounds, ExpandedPercentile
from stepscope.hooks.errors import StepscopeError


def auroc(scores: Float[np.ndarray, "*cell"], truth: Bool[np.ndarray, "*cell"]) -> float:
    """The probability, 0 to 1, that a true cell has a larger score than another; ties count a half.

    Mann and Whitney's U over the number of pairs (Hanley and McNeil 1982). 0.5 is chance. Raises
    StepscopeError where no cell is true, or every one is.
    """
    count, others = int(truth.sum()), int((~truth).sum())
    if not count or not others:
        raise StepscopeError(f"{count} of {truth.size} cells are true: AUROC needs both kinds")
    return float(stats.mannwhitneyu(scores[truth], scores[~truth]).statistic / (count * others))


def interval(values: Float[np.ndarray, " organism"]) -> Bounds:
    """Mean over organisms with its 95 % interval, by resampling organisms; bounds are NaN below five."""
    return ExpandedPercentile()(values, lambda means: means)
