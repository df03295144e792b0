"""Intervals hold the truth as often as they say, and more often than what one would usually take.

Both are read on the same simulated studies, so that a difference of a few points is seen in a few
hundred of them. `tests/bench/coverage.py` has more studies and faces.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats

from stepscope.analysis.bootstrap import ExpandedPercentile, Interval, JackknifeT
from stepscope.analysis.coverage import CASES
from stepscope.analysis.coverage_case import Case, Percentile

FACES = 8
STUDIES = {ExpandedPercentile: 150, JackknifeT: 300}
"""A study of a window takes several times as long as one of a mean."""
MORE = {"lag, share of plateau": 600, "share of plateau, smooth curve": 600}
"""Studies where the two intervals differ by little."""
WIDE = (
    "broken line, sloped, break on a point",
    "detection rate",
    "d_z, large",
    "drawn, alike",
)
"""Cases, by parts of their names, in which the interval holds more than it says: analysis/README.md."""
NARROW = {
    "drift": 0.93,
    "from the population's peak": 0.86,
    "calls go together": 0.80,
    "skewed": 0.86,
    "prompts differ in pace": 0.89,
}
"""Cases in which it holds less, and how much less at most: analysis/README.md says why it stays so."""
AS_GOOD = (
    "break on a point",
    "no drift",
    "drawn, alike",
    "seconds an image",
    "times faster",
    "detection rate",
    "d_z",
)
"""Cases in which the usual interval is as good, or is not one of the same thing."""


FIRST = {case.name.split(",")[0]: case.name for case in reversed(CASES)}
"""Of each estimator, the case that is tried in each run of the tests; its variants in the slow one."""


def each(cases: list[Case]) -> list[Any]:
    """Cases as parameters, an estimator's variants marked slow."""
    return [
        pytest.param(c, id=c.name, marks=[pytest.mark.slow] * (c.name not in FIRST.values()))
        for c in cases
    ]


SEEN = ("lag", "mean", "share of rise", "paired effect")
"""Estimators of which the usual interval is tried too in each run of the tests: one of each kind."""


def studies(case: Case) -> int:
    return MORE.get(case.name, STUDIES[type(case.interval)])


@cache
def held(case: Case, *, usual: bool = False) -> np.ndarray:
    """Of each study, by the recommended interval or the usual one."""
    interval: Interval = case.interval
    if isinstance(interval, ExpandedPercentile):
        interval = replace(interval, resamples=199)
    if usual and not case.usual:
        interval = Percentile(resamples=199)
    return case.covers(interval, faces=FACES, studies=studies(case), usual=usual)


@pytest.mark.parametrize("case", each([*CASES]))
def test_the_recommended_interval_has_its_nominal_coverage(case: Case) -> None:
    error = 2 * np.sqrt(0.95 * 0.05 / studies(case))
    least = min((share for word, share in NARROW.items() if word in case.name), default=0.94)
    most = 1.0 if any(word in case.name for word in WIDE) else 0.97
    assert least - error < held(case).mean() < most + error


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c.name, marks=[pytest.mark.slow] * (c.name not in map(FIRST.get, SEEN)))
        for c in CASES
        if not any(word in c.name for word in AS_GOOD)
    ],
)
def test_it_holds_the_truth_where_the_usual_interval_misses_it(case: Case) -> None:
    """McNemar's exact test, on the studies in which one of the two alone holds the truth."""
    ours, usual = held(case), held(case, usual=True)
    gained, lost = int((ours & ~usual).sum()), int((~ours & usual).sum())
    assert stats.binomtest(gained, gained + lost, alternative="greater").pvalue < 0.01


@pytest.mark.parametrize("name", ["share of plateau, smooth curve", "paired effect"])
def test_an_interval_that_is_too_narrow_is_seen(name: str) -> None:
    """The usual percentile interval fails the law of coverage that the recommended one keeps."""
    case = next(c for c in CASES if c.name == name)
    least = 0.94 - 2 * np.sqrt(0.95 * 0.05 / studies(case))
    assert held(case, usual=True).mean() < least
