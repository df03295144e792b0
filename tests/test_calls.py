"""Seconds are those of pipeline calls: each counts once, and intervals are Student's and Fieller's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.calls import average, faster, seconds_an_image
from analysis.synthetic import Timing

seeds = st.integers(0, 2**32 - 1)


def timed(seed: int, seconds: float, calls: int, spread: float = 0.1) -> np.ndarray:
    return seconds_an_image(Timing(seconds, calls, spread=spread)(np.random.default_rng(seed)))


def test_a_call_counts_once_however_many_of_its_samples_are_left() -> None:
    run = Timing(2.0, calls=5, batch=4)(np.random.default_rng(0))
    total = run["latency_seconds"].sel(part="total").values
    whole = seconds_an_image(run)
    np.testing.assert_array_equal(whole, total[[0, 4, 8, 12, 16]] / [4, 4, 4, 4, 2])
    some = run.isel(sample=[17, 1, 3, 8, 0])  # a part of the run, in another order
    np.testing.assert_array_equal(seconds_an_image(some), whole[[4, 0, 2]])


def test_a_part_that_was_not_measured_does_not_split_a_call() -> None:
    run = Timing(2.0, calls=3, batch=4)(np.random.default_rng(0))
    parts = run["latency_seconds"].reindex(part=["face", "total"])  # face: NaN throughout
    assert len(seconds_an_image(run.drop_dims("part").assign(latency_seconds=parts))) == 3


@given(seeds, st.integers(2, 9))
def test_the_interval_of_the_mean_is_students(seed: int, calls: int) -> None:
    seconds = timed(seed, 3.0, calls)
    found = average(seconds, level=0.9)
    known = stats.ttest_1samp(seconds, 0.0).confidence_interval(0.9)
    assert (found["low"], found["high"]) == pytest.approx((known.low, known.high))
    assert found.attrs["calls"] == [calls]


@given(seeds, st.integers(2, 9), st.integers(2, 9))
def test_the_bounds_of_a_ratio_are_where_welchs_test_turns(seed: int, m: int, n: int) -> None:
    slow, fast = timed(seed, 6.0, m), timed(seed + 1, 1.0, n, spread=0.05)
    found = faster(slow, fast)
    ratio = found["ratio"].item()
    assert ratio == pytest.approx(slow.mean() / fast.mean())
    t = stats.t.ppf(0.975, stats.ttest_ind(slow, ratio * fast, equal_var=False).df)  # pyright: ignore[reportAttributeAccessIssue]
    if np.isnan(found["low"]):  # two calls may leave a mean that is not told from 0
        assert t * stats.sem(fast) >= fast.mean()
        return
    for bound in (found["low"].item(), found["high"].item()):
        error = np.hypot(stats.sem(slow), bound * stats.sem(fast))
        assert abs(slow.mean() - bound * fast.mean()) == pytest.approx(t * error, rel=1e-6)
    assert found["low"] < ratio < found["high"]


def test_a_ratio_is_exact_where_nothing_varies() -> None:
    found = faster(np.full(4, 10.0), np.full(3, 2.5))
    assert [found[word].item() for word in ("ratio", "low", "high")] == pytest.approx([4, 4, 4])


def test_one_call_has_no_interval_and_says_why() -> None:
    one, more = np.array([2.0]), np.array([1.0, 1.1])
    for found, word in ((average(one), "mean"), (faster(one, more), "ratio")):
        assert found[word] > 0
        assert np.isnan([found["low"], found["high"]]).all()
        assert found.attrs["without_interval"] == "one call"


def test_a_denominator_that_may_be_nothing_gives_no_interval() -> None:
    found = faster(np.array([5.0, 5.1]), np.array([0.1, 2.0]))
    assert np.isnan(found["high"])
    assert found.attrs["without_interval"] == "denominator not above 0"
