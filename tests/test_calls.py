"""Seconds are those of pipeline calls: each counts once, and intervals are Student's and Fieller's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.calls import Calls, average, faster, seconds_an_image
from analysis.synthetic import Timing

seeds = st.integers(0, 2**32 - 1)


def timed(seed: int, seconds: float, calls: int, spread: float = 0.1) -> Calls:
    run = Timing(seconds, calls + (calls > 1), spread=spread, cold=9.0)
    return seconds_an_image(run(np.random.default_rng(seed)))


def test_a_call_counts_once_however_many_of_its_samples_are_left() -> None:
    run = Timing(2.0, calls=5, batch=4)(np.random.default_rng(0))
    total = run["latency_seconds"].sel(part="total").values
    whole = seconds_an_image(run)
    np.testing.assert_array_equal(whole.seconds, total[[4, 8, 12, 16]] / [4, 4, 4, 2])
    some = run.isel(sample=[17, 1, 3, 8, 5, 0])  # a part of the run, in another order
    np.testing.assert_array_equal(seconds_an_image(some).seconds, whole.seconds[[3, 1, 0]])


def test_the_cold_first_call_is_left_out_and_counted_where_two_others_remain() -> None:
    run = Timing(2.0, calls=4, batch=4, spread=0.01, cold=50.0)(np.random.default_rng(0))
    whole = seconds_an_image(run)
    assert whole.left_out == 1
    assert whole.seconds == pytest.approx(np.full(3, 2.0), rel=0.1)
    found = faster(whole, Calls(np.array([1.0, 1.1])))
    assert (found.attrs["calls"], found.attrs["left_out"]) == ([3, 2], [1, 0])
    two = seconds_an_image(run.isel(sample=slice(8)))
    assert two.left_out == 0
    assert two.seconds[0] > 50


def test_the_first_call_is_known_where_sample_0_was_cut_away() -> None:
    run = Timing(2.0, calls=4, batch=4, cold=50.0)(np.random.default_rng(0))
    of_it = seconds_an_image(run.isel(sample=slice(2, None)))
    assert (len(of_it.seconds), of_it.left_out) == (3, 1)
    later = seconds_an_image(run.isel(sample=slice(4, None)))
    assert (len(later.seconds), later.left_out) == (3, 0)


def test_a_part_that_was_not_measured_does_not_split_a_call() -> None:
    run = Timing(2.0, calls=3, batch=4)(np.random.default_rng(0))
    parts = run["latency_seconds"].reindex(part=["face", "total"])  # face: NaN throughout
    found = seconds_an_image(run.drop_dims("part").assign(latency_seconds=parts))
    assert len(found.seconds) + found.left_out == 3


@given(seeds, st.integers(2, 9))
def test_the_interval_of_the_mean_is_students(seed: int, calls: int) -> None:
    seconds = timed(seed, 3.0, calls)
    found = average(seconds, level=0.9)
    known = stats.ttest_1samp(seconds.seconds, 0.0).confidence_interval(0.9)
    assert (found["low"], found["high"]) == pytest.approx((known.low, known.high))
    assert found.attrs["calls"] == [calls]


@given(seeds, st.integers(2, 9), st.integers(2, 9))
def test_the_bounds_of_a_ratio_are_where_welchs_test_turns(seed: int, m: int, n: int) -> None:
    one, other = timed(seed, 6.0, m), timed(seed + 1, 1.0, n, spread=0.05)
    found, slow, fast = faster(one, other), one.seconds, other.seconds
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
    found = faster(Calls(np.full(4, 10.0)), Calls(np.full(3, 2.5)))
    assert [found[word].item() for word in ("ratio", "low", "high")] == pytest.approx([4, 4, 4])


def test_one_call_has_no_interval_and_says_why() -> None:
    one, more = Calls(np.array([2.0])), Calls(np.array([1.0, 1.1]))
    for found, word in ((average(one), "mean"), (faster(one, more), "ratio")):
        assert found[word] > 0
        assert np.isnan([found["low"], found["high"]]).all()
        assert found.attrs["without_interval"] == "one call"


def test_a_denominator_that_may_be_nothing_gives_no_interval() -> None:
    found = faster(Calls(np.array([5.0, 5.1])), Calls(np.array([0.1, 2.0])))
    assert np.isnan(found["high"])
    assert found.attrs["without_interval"] == "denominator not above 0"
