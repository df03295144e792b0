"""Designs: power as scipy simulates it, and the fewest faces that reach it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepscope.analysis.power import Design, noncentrality, pairs_needed, pairs_range
from stepscope.hooks.errors import StepscopeError


def test_power_is_that_of_scipys_simulated_t_test() -> None:
    design = Design(faces=12, cells_per_face=1, between_sd=0.0, within_sd=1.0)
    rng = np.random.default_rng(0)
    simulated = stats.power(
        stats.ttest_1samp,
        lambda size: rng.normal(0.8, 1, size),
        12,
        significance=0.05,
        kwargs={"popmean": 0.0},
        n_resamples=20_000,
    ).power
    assert design.power(0.8) == pytest.approx(simulated, abs=0.01)


@pytest.mark.parametrize("faces", [2, 3, 8, 24, 200])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.5, 4.0])
def test_power_is_the_tails_of_scipys_noncentral_t(faces: int, shift: float) -> None:
    design = Design(faces, cells_per_face=1, between_sd=0.0, within_sd=np.sqrt(faces))
    critical = stats.t.ppf(0.975, faces - 1)
    known = stats.nct.sf(critical, faces - 1, shift) + stats.nct.cdf(-critical, faces - 1, shift)
    assert design.power(shift) == pytest.approx(known, abs=1e-4)


def test_without_an_effect_the_power_is_the_size_of_the_test() -> None:
    assert Design(12, 6, 0.03, 0.1).power(0.0) == pytest.approx(0.05, abs=1e-4)
    assert Design(12, 6, 0.03, 0.1, level=0.99).power(0.0) == pytest.approx(0.01, abs=1e-4)


def test_the_textbooks_example_needs_34_pairs() -> None:
    """Cohen (1988): d = 0.5, power 0.8, two-sided 0.05, paired t test: 34 pairs."""
    found = pairs_needed(0.5, between_sd=0.0, within_sd=1.0, cells_per_face=1, power=0.8)
    assert found.pairs == found.faces == 34


sds = st.floats(0.01, 0.3)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 0.3), sds, sds, st.integers(1, 20), st.floats(0.5, 0.99))
def test_it_is_the_smallest_design_and_sees_its_effect(
    effect: float, between: float, within: float, cells: int, power: float
) -> None:
    found = pairs_needed(
        effect, between_sd=between, within_sd=within, cells_per_face=cells, power=power
    )
    assert found.power(effect) >= power
    assert found.detectable(power) <= effect * (1 + 1e-6)
    if found.faces > 2:
        assert Design(found.faces - 1, cells, between, within).power(effect) < power


def test_the_design_effect_is_the_variance_over_that_of_free_pairs() -> None:
    design = Design(faces=10, cells_per_face=8, between_sd=0.05, within_sd=0.1)
    free = (0.05**2 + 0.1**2) / design.pairs
    assert design.standard_error**2 / free == pytest.approx(design.design_effect)


def test_a_plan_at_the_upper_end_falls_short_in_one_pilot_of_ten_and_the_plain_one_in_half() -> (
    None
):
    faces, cells, spread, effect = 8, 6, 0.05, 0.028
    known = {"between_sd": spread, "within_sd": 0.0, "cells_per_face": cells, "power": 0.8}
    needed = pairs_needed(effect, **known).pairs
    rng, short = np.random.default_rng(0), []
    for _ in range(150):
        found = rng.normal(0, spread, faces).std(ddof=1)
        low, high = pairs_range(effect, spread=found, faces=faces, cells_per_face=cells, power=0.8)
        plain = pairs_needed(
            effect, between_sd=found, within_sd=0.0, cells_per_face=cells, power=0.8
        ).pairs
        assert low <= plain <= high
        short.append([plain < needed, high < needed])
    plain, sure = np.mean(short, 0)
    assert sure == pytest.approx(0.1, abs=0.06)
    assert plain > 0.45
    with pytest.raises(StepscopeError, match="at least 2 faces, got 1"):
        pairs_range(effect, spread=0.1, faces=1, cells_per_face=1, power=0.8)


@pytest.mark.parametrize("df", [4, 7, 30])
@pytest.mark.parametrize("t", [-3.0, 0.0, 0.7, 6.0])
def test_the_ends_of_a_noncentrality_are_scipys(t: float, df: int) -> None:
    low, high = noncentrality(np.array([t]), np.array([float(df)]), level=0.95)
    assert stats.nct.cdf(t, df, low[0]) == pytest.approx(0.975, abs=1e-4)
    assert stats.nct.cdf(t, df, high[0]) == pytest.approx(0.025, abs=1e-4)
    assert np.isnan(noncentrality(np.array([np.nan]), np.array([3.0]), level=0.95)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effect": 0.0}, "effect of 0.0"),
        ({"power": 1.0}, "power 1.0"),
        ({"within_sd": float("nan")}, "deviations above 0"),
        ({"effect": 1e-7}, "more than 1,000,000 faces"),
    ],
)
def test_what_no_design_can_do_is_refused(change: dict, message: str) -> None:
    asked = {
        "effect": 0.1,
        "between_sd": 0.1,
        "within_sd": 0.1,
        "cells_per_face": 6,
        "power": 0.8,
    }
    with pytest.raises(StepscopeError, match=message):
        pairs_needed(**(asked | change))
