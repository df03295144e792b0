"""Intervals over faces: Student's and scipy's where these apply, and their laws where they do not."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy import nan
from scipy import stats

from stepscope.analysis.bootstrap import (
    INTERVALS,
    WITHOUT,
    Bounds,
    ExpandedPercentile,
    JackknifeT,
    Means,
    too_few,
    weighted_means,
)
from stepscope.hooks.errors import StepscopeError

each = pytest.mark.parametrize("kind", INTERVALS, ids=lambda kind: kind.__name__)
seeds = st.integers(0, 2**32 - 1)


def itself(means: Means) -> Means:
    return means


def ratio(means: Means) -> Means:
    return means[:, 0] / means[:, 1]


def faces(seed: int, count: int = 12, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(1, 0.3, (count, 2)) + 3
    values[rng.random(values.shape) < missing] = np.nan
    return values


@given(seeds)
def test_the_jackknife_of_a_mean_is_students_interval_over_the_faces_that_are_there(
    seed: int,
) -> None:
    values = faces(seed, missing=0.3)
    found = JackknifeT(level=0.9)(values, itself)
    for k in range(2):
        there = values[:, k][np.isfinite(values[:, k])]
        if len(there) > 1:
            known = stats.ttest_1samp(there, 0.0).confidence_interval(0.9)
            assert (found.low[k], found.high[k]) == pytest.approx((known.low, known.high))


tied = st.lists(
    st.lists(
        st.one_of(st.integers(-4, 4).map(float), st.sampled_from([0.61, 0.62, 0.63]), st.just(nan)),
        min_size=2,
        max_size=2,
    ),
    min_size=2,
    max_size=12,
).map(np.array)


def students(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Lower and upper bound of the mean of what is finite, by the textbook's formula."""
    there = values[np.isfinite(values)]
    n = len(there)
    half = stats.t.ppf((1 + level) / 2, n - 1) * there.std(ddof=1) / np.sqrt(n)
    return there.mean() - half, there.mean() + half


@example(np.array([[0.61, 1], [0.62, 2], [0.63, 3]]))
@example(np.array([[0.4, 1], [0.5, 1], [0.5, 1], [0.6, nan]]))
@given(tied)
@settings(deadline=None)
def test_faces_that_are_equal_to_the_mean_or_to_each_other_are_not_missing(values) -> None:
    assume((np.isfinite(values).sum(0) > 1).all())
    found = JackknifeT()(values, itself)
    for k in range(2):
        known = students(values[:, k])
        assert (found.low[k], found.high[k]) == pytest.approx(known, rel=1e-12, abs=1e-12)


@given(tied)
@settings(deadline=None)
def test_an_estimate_of_several_entries_is_students_over_the_faces_that_have_both(values) -> None:
    """For a difference of two, where each face has both or neither."""
    values[np.isnan(values).any(1)] = nan
    assume(np.isfinite(values[:, 0]).sum() > 1)
    found = JackknifeT()(values, lambda means: means[:, :1] - means[:, 1:])
    known = students(values[:, 0] - values[:, 1])
    assert (found.low[0], found.high[0]) == pytest.approx(known, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_a_face_with_one_of_two_entries_counts_and_the_interval_holds_its_level(
    correlation: float,
) -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(studies := 2000):
        shared = rng.normal(0, 1, (12, 1)) * correlation**0.5
        values = shared + rng.normal(0, 1, (12, 2)) * (1 - correlation) ** 0.5
        values[rng.random(values.shape) < 0.3] = nan
        found = JackknifeT()(values, lambda means: means[:, :1] - means[:, 1:])
        inside += found.low[0] <= 0 <= found.high[0]
    assert inside / studies == pytest.approx(0.95, abs=0.02)


def test_an_estimate_reads_some_entries_alone_and_counts_their_faces_alone() -> None:
    values = np.array([[0.1, 1.0], [0.2, 2.0], [0.4, nan], [0.9, nan], [nan, 5.0]])
    found = JackknifeT()(values, lambda means: means[:, :1])
    assert (found.low[0], found.high[0]) == pytest.approx(students(values[:, 0]))


@pytest.mark.parametrize("beyond", [np.inf, nan])
def test_a_face_without_which_there_is_no_estimate_makes_the_interval_undefined(beyond) -> None:
    values = np.array([[1.0], [2.0], [9.0]])
    found = JackknifeT()(values, lambda means: np.where(means < 2, beyond, means))
    assert found.estimate[0] == 4
    assert np.isnan([found.low[0], found.high[0]]).all()


def test_the_expanded_percentile_is_scipys_bootstrap_at_the_wider_level() -> None:
    values = faces(0)[:, :1]
    n = len(values)
    tail = float(stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1)))
    known = stats.bootstrap(
        (values[:, 0],),
        np.mean,
        confidence_level=1 - 2 * tail,
        method="percentile",
        n_resamples=100_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = ExpandedPercentile(resamples=99_999)(values, itself)
    width = known.high - known.low
    assert (found.low[0], found.high[0]) == pytest.approx((known.low, known.high), abs=0.02 * width)


@each
@given(seeds, st.floats(0.1, 10), st.floats(-10, 10))
@settings(max_examples=20, deadline=None)
def test_the_interval_moves_with_the_unit(kind, seed: int, scale: float, shift: float) -> None:
    values = faces(seed)
    plain, moved = kind()(values, itself), kind()(shift + scale * values, itself)
    for before, after in zip(plain, moved, strict=True):
        assert after == pytest.approx(shift + scale * before)


@each
@given(seeds)
@settings(max_examples=20, deadline=None)
def test_it_holds_its_estimate_and_widens_with_its_level(kind, seed: int) -> None:
    values = faces(seed)
    narrow, wide = kind(level=0.8)(values, ratio), kind(level=0.99)(values, ratio)
    assert wide.low < narrow.low <= narrow.estimate <= narrow.high < wide.high


@each
def test_a_face_without_measurements_changes_nothing(kind) -> None:
    values = faces(3)
    more = np.concatenate([values, np.full((4, 2), np.nan)])
    for without, with_it in zip(kind()(values, ratio), kind()(more, ratio), strict=True):
        assert with_it == pytest.approx(without)


@each
def test_equal_faces_have_an_interval_of_no_width(kind) -> None:
    found: Bounds = kind()(np.full((6, 1), 0.5), itself)
    assert (found.low[0], found.high[0]) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        (JackknifeT, [[0.5], [np.nan]], "at least 2 faces with measurements, got 1"),
        (ExpandedPercentile, [[np.nan], [np.nan]], "at least 1 face with measurements, got 0"),
    ],
)
def test_too_few_faces_for_an_estimate_are_refused(kind, values: list, told: str) -> None:
    with pytest.raises(StepscopeError, match=told):
        kind()(np.array(values), itself)


def test_a_percentile_interval_of_fewer_faces_than_can_hold_it_is_none() -> None:
    values = faces(6)
    for n in range(1, 5):
        found = ExpandedPercentile()(values[:n], ratio)
        assert found.estimate == pytest.approx(values[:n, 0].mean() / values[:n, 1].mean())
        assert np.isnan([found.low, found.high]).all()
        assert too_few(ExpandedPercentile(), values[:n]) == {WITHOUT: f"needs 5 faces; here {n}"}
    assert np.isfinite(ExpandedPercentile()(values[:5], ratio).low)
    assert too_few(ExpandedPercentile(), values[:5]) == {}


def test_an_estimate_beyond_the_range_makes_its_bound_infinite() -> None:
    values = faces(5)[:, 0]
    middle = values.mean()

    def censored(means: Means) -> Means:
        return np.where(means > middle + 0.01, np.inf, means)

    found = ExpandedPercentile()(values, censored)
    assert np.isfinite(found.low)
    assert found.high == np.inf


def test_an_undefined_estimate_makes_the_interval_undefined() -> None:
    values = faces(5)[:, 0]
    found = ExpandedPercentile()(values, lambda m: np.where(m > values.mean(), np.nan, m))
    assert np.isnan([found.low, found.high]).all()


def test_weights_leave_out_a_missing_face_where_it_is_missing() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0], [8.0, 7.0]])
    found = weighted_means(np.array([[1.0, 1, 0], [2, 0, 0]]), values)
    np.testing.assert_allclose(found, [[2, 5], [1, np.nan]])
