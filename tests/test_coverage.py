"""Intervals hold the truth as often as they say; `tests/bench/coverage.py` has 1,000 studies of each."""

from dataclasses import replace

import pytest

from analysis.bootstrap import ExpandedPercentile, JackknifeT
from analysis.coverage import CASES, Case

STUDIES = 150
MARGIN = 0.02 + 2 * 0.0178
"""Two points, and twice the standard error of a share near 0.95 in 150 studies."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_recommended_interval_has_its_nominal_coverage(case: Case) -> None:
    interval = case.interval
    if isinstance(interval, ExpandedPercentile):
        interval = replace(interval, resamples=299)
    assert case.coverage(interval, faces=12, studies=STUDIES) == pytest.approx(0.95, abs=MARGIN)


def test_an_interval_that_is_too_narrow_is_seen() -> None:
    """The jackknife at a threshold's crossing, which has kinks that it does not know."""
    case = next(c for c in CASES if c.name == "share of plateau, smooth curve")
    assert case.coverage(JackknifeT(), faces=12, studies=STUDIES) < 0.95 - MARGIN
