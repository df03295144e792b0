"""Intervals hold the truth as often as they say; `tests/bench/coverage.py` has more studies and faces."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.bootstrap import ExpandedPercentile, JackknifeT
from analysis.coverage import CASES, Case

STUDIES = {ExpandedPercentile: 300, JackknifeT: 500}
"""A study of a window takes several times as long as one of a mean."""


def margin(studies: int) -> float:
    """Two points, and twice the standard error of a share near 0.95 in so many studies."""
    return 0.02 + 2 * float(np.sqrt(0.95 * 0.05 / studies))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_recommended_interval_has_its_nominal_coverage(case: Case) -> None:
    interval, studies = case.interval, STUDIES[type(case.interval)]
    if isinstance(interval, ExpandedPercentile):
        interval = replace(interval, resamples=299)
    found = case.coverage(interval, faces=12, studies=studies)
    assert found == pytest.approx(0.95, abs=margin(studies))


def test_an_interval_that_is_too_narrow_is_seen() -> None:
    """The jackknife at a threshold's crossing, which has kinks that it does not know."""
    case = next(c for c in CASES if c.name == "share of plateau, smooth curve")
    assert case.coverage(JackknifeT(), faces=12, studies=300) < 0.95 - margin(300)
