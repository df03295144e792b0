"""Seconds are those of pipeline calls: each counts once, alike ones alone, and as what they are worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stepscope.analysis.calls import Calls, average, faster, seconds_an_image
from stepscope.analysis.synthetic import Timing

seeds = st.integers(0, 2**32 - 1)


def timed(seed: int, seconds: float, calls: int, spread: float = 0.1) -> Calls:
    drawn = np.random.default_rng(seed).lognormal(0, spread, calls)
    return Calls(seconds * drawn)


def test_a_call_counts_once_however_many_of_its_samples_are_left() -> None:
    run = Timing(2.0, calls=6, batch=4)(np.random.default_rng(0))
    total = run["latency_seconds"].sel(part="total").values
    whole = seconds_an_image(run)
    np.testing.assert_array_equal(whole.seconds, total[[4, 8, 12, 16]] / 4)
    some = run.isel(sample=[20, 1, 3, 8, 5, 0])  # a part of the run, in another order
    np.testing.assert_array_equal(seconds_an_image(some).seconds, whole.seconds[[0, 1]])


def test_the_cold_first_call_and_those_of_another_size_are_left_out_and_counted() -> None:
    run = Timing(2.0, calls=4, batch=4, spread=0.01, cold=50.0)(np.random.default_rng(0))
    whole = seconds_an_image(run)
    assert (whole.cold, whole.odd) == (1, 1)
    assert whole.seconds == pytest.approx(np.full(2, 2.0), rel=0.1)
    found = faster(whole, Calls(np.array([1.0, 1.1])))
    assert [found.attrs[word] for word in ("calls", "cold", "odd")] == [[2, 2], [1, 0], [1, 0]]
    of_one_size = seconds_an_image(run.isel(sample=slice(8)))
    assert (len(of_one_size.seconds), of_one_size.cold, of_one_size.odd) == (1, 1, 0)
    alone = seconds_an_image(run.isel(sample=slice(4)))
    assert (len(alone.seconds), alone.cold) == (1, 0)
    assert alone.seconds[0] > 50


def test_the_first_call_is_known_where_sample_0_was_cut_away() -> None:
    run = Timing(2.0, calls=4, batch=4, cold=50.0)(np.random.default_rng(0))
    of_it = seconds_an_image(run.isel(sample=slice(2, None)))
    assert (len(of_it.seconds), of_it.cold) == (2, 1)
    later = seconds_an_image(run.isel(sample=slice(4, None)))
    assert (len(later.seconds), later.cold) == (2, 0)


def test_a_recorded_call_is_believed_where_two_calls_took_the_same() -> None:
    run = Timing(2.0, calls=4, batch=4, spread=0.0)(np.random.default_rng(0))
    assert len(seconds_an_image(run.isel(sample=slice(12))).seconds) == 1  # taken for one call
    told = run.assign_coords(call=("sample", np.array([0, 4, 8, 12]).repeat(4)[:14]))
    found = seconds_an_image(told)
    assert (len(found.seconds), found.cold, found.odd) == (2, 1, 1)


def test_a_part_that_was_not_measured_does_not_split_a_call() -> None:
    run = Timing(2.0, calls=3, batch=4)(np.random.default_rng(0))
    parts = run["latency_seconds"].reindex(part=["face", "total"])  # face: NaN throughout
    found = seconds_an_image(run.drop_dims("part").assign(latency_seconds=parts))
    assert len(found.seconds) + found.cold + found.odd == 3


def correlation(seconds: np.ndarray) -> float:
    apart = seconds - seconds.mean()
    raw = (apart[1:] * apart[:-1]).sum() / (apart**2).sum()
    return float(np.clip(raw + (1 + 3 * raw) / len(seconds), 0, 0.95))


@given(seeds, st.integers(3, 12))
def test_the_interval_of_the_mean_is_students_for_the_calls_that_they_are_worth(
    seed: int, calls: int
) -> None:
    seconds = timed(seed, 3.0, calls)
    found = average(seconds, level=0.9)
    place = np.arange(calls)
    together = correlation(seconds.seconds) ** np.abs(place[:, None] - place)
    worth = calls**2 / together.sum()
    assert found.attrs["worth"] == [pytest.approx(worth)]
    # The sample's variance is n - 1 over n - n / worth too small.
    variance = seconds.seconds.var() * calls / max(calls - calls / worth, calls / 5)
    half = stats.t.ppf(0.95, max(worth - 1, 1)) * np.sqrt(variance * together.sum()) / calls
    assert found["high"] - found["mean"] == pytest.approx(half)
    if worth == calls:  # they alternate
        known = stats.ttest_1samp(seconds.seconds, 0.0).confidence_interval(0.9)
        assert (found["low"], found["high"]) == pytest.approx((known.low, known.high))


def test_calls_that_go_together_are_worth_fewer() -> None:
    slow_minutes = np.repeat([2.0, 2.6, 2.1, 2.5], 6) + 0.01 * np.arange(24) % 0.03
    found, free = average(Calls(slow_minutes)), average(Calls(slow_minutes.reshape(4, 6).T.ravel()))
    assert found.attrs["worth"][0] < 8
    assert free.attrs["worth"][0] > 16
    assert found["high"] - found["low"] > 1.7 * (free["high"] - free["low"])


@given(seeds, st.integers(2, 9), st.integers(2, 9))
def test_the_bounds_of_a_ratio_are_where_welchs_test_turns(seed: int, m: int, n: int) -> None:
    one, other = timed(seed, 6.0, m), timed(seed + 1, 1.0, n, spread=0.05)
    found = faster(one, other)
    ratio = found["ratio"].item()
    assert ratio == pytest.approx(one.seconds.mean() / other.seconds.mean())
    errors, free = [], []
    for calls in (one, other):
        alone = average(calls)
        free.append(max(alone.attrs["worth"][0] - 1, 1.0))
        half = (alone["high"] - alone["mean"]).item()
        errors.append(half / stats.t.ppf(0.975, free[-1]))
    squares = np.array([errors[0] ** 2, (ratio * errors[1]) ** 2])
    t = stats.t.ppf(0.975, squares.sum() ** 2 / (squares**2 / free).sum())
    if np.isnan(found["low"]):  # two calls may leave a mean that is not told from 0
        assert t * errors[1] >= other.seconds.mean()
        return
    for bound in (found["low"].item(), found["high"].item()):
        apart = abs(one.seconds.mean() - bound * other.seconds.mean())
        assert apart == pytest.approx(t * np.hypot(errors[0], bound * errors[1]), rel=1e-6)
    assert found["low"] < ratio < found["high"]


def test_a_ratio_is_exact_where_nothing_varies() -> None:
    found = faster(Calls(np.full(4, 10.0)), Calls(np.full(3, 2.5)))
    assert [found[word].item() for word in ("ratio", "low", "high")] == pytest.approx([4, 4, 4])


def test_one_call_has_no_interval_and_says_why() -> None:
    one, more = Calls(np.array([2.0])), Calls(np.array([1.0, 1.1]))
    for found, word in ((average(one), "mean"), (faster(one, more), "ratio")):
        assert found[word] > 0
        assert np.isnan([found["low"], found["high"]]).all()
        assert found.attrs["without_interval"] == "one call: too few to quote"


def test_a_denominator_that_may_be_nothing_gives_no_interval() -> None:
    found = faster(Calls(np.array([5.0, 5.1])), Calls(np.array([0.1, 2.0])))
    assert np.isnan(found["high"])
    assert found.attrs["without_interval"] == "denominator not above 0"
