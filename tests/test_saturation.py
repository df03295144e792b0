"""Every estimator of the window finds the known position, and obeys its symmetries."""

from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from stepscope.analysis.saturation import (
    REASONS,
    BrokenLine,
    ExponentialApproach,
    ShareOfPlateau,
    panel,
)
from stepscope.analysis.synthetic import Approach, Hinge
from tests.bench.breaks import errors

STEPS = np.arange(28.0)
IRREGULAR = np.array([0.0, 1, 2, 4, 5, 7, 8, 11, 12, 15, 19, 20, 24, 28])
Plateau = Literal["tail", "peak", "last"]
noise = st.integers(0, 2**32 - 1).map(lambda s: np.random.default_rng(s).normal(0, 0.02, (3, 28)))
each = pytest.mark.parametrize("estimator", panel(0.9), ids=repr)


def rising(deviation: np.ndarray) -> np.ndarray:
    """A saturating curve with a small deviation that keeps its start at zero."""
    return 0.6 * (1 - np.exp(-STEPS / 4)) + deviation * (STEPS > 0)


@pytest.mark.parametrize("x", [STEPS, IRREGULAR], ids=["regular", "irregular"])
@pytest.mark.parametrize("plateau", get_args(Plateau))
def test_share_of_a_straight_rise_is_that_share_of_the_way(x: np.ndarray, plateau: Plateau) -> None:
    for share in (0.3, 0.5, 0.9, 0.95):
        estimator = ShareOfPlateau(share=share, plateau=plateau)
        assert estimator(Hinge(8.0)(x)[None], x).position == pytest.approx(share * 8)


def test_an_origin_at_the_first_value_counts_the_rise() -> None:
    y = 0.4 + 0.5 * Hinge(10.0)(STEPS)[None]
    assert ShareOfPlateau(share=0.8, origin="first")(y, STEPS).position == pytest.approx(8)
    assert ShareOfPlateau(share=0.8)(y, STEPS).position == pytest.approx((0.8 * 0.9 - 0.4) / 0.05)


@pytest.mark.parametrize(
    "estimator", [ShareOfPlateau(share=0.9), ExponentialApproach(share=0.9)], ids=repr
)
def test_a_curve_that_starts_above_its_share_is_censored_on_the_left(estimator) -> None:
    y = 0.6 - 0.03 * np.exp(-STEPS / 3)[None]
    found = estimator(y, STEPS)
    assert found.position == -np.inf
    assert REASONS[found.reason[0]].startswith("starts above the share")
    assert np.isfinite(estimator(y - 0.5, STEPS).position)


@pytest.mark.parametrize(("after", "most"), [("flat", 0.03), ("sloped", 0.06)])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_straight_line_whose_errors_go_together_is_seldom_broken(
    after, most: float, correlation: float
) -> None:
    error = errors(28, correlation)
    straight = 0.8 + 0.2 * STEPS / 27 + 0.01 * error
    broken = np.isfinite(BrokenLine(after=after)(straight, STEPS).position)
    assert broken.mean() < most
    bent = 0.6 * Hinge(9.3)(STEPS) + 0.03 * error[:200]
    assert np.isfinite(BrokenLine(after=after)(bent, STEPS).position).mean() > 0.98


def test_staying_above_is_later_than_first_reaching_in_a_curve_that_falls_back() -> None:
    y = np.array([[0, 1, 0.4, 0.6, 1, 1, 1, 1.0]])
    x = np.arange(8.0)
    assert ShareOfPlateau(share=0.8)(y, x).position == pytest.approx(0.8)
    assert ShareOfPlateau(share=0.8, stays=True)(y, x).position == pytest.approx(3.5)


@pytest.mark.parametrize("x", [STEPS, IRREGULAR], ids=["regular", "irregular"])
@pytest.mark.parametrize("at", [3.0, 7.4, 11.0, 14.9])
def test_a_broken_line_is_found_exactly_at_and_between_points(x: np.ndarray, at: float) -> None:
    flat, sloped = BrokenLine(after="flat"), BrokenLine(after="sloped")
    assert flat(Hinge(at)(x)[None], x).position == pytest.approx(at)
    assert sloped(Hinge(at, slope=-0.01)(x)[None], x).position == pytest.approx(at)


@pytest.mark.parametrize("tau", [0.7, 2.0, 5.0])
def test_an_exponential_reaches_its_share_at_tau_times_a_logarithm(tau: float) -> None:
    y = 0.6 * Approach(tau)(STEPS)[None]
    position = ExponentialApproach(share=0.9)(y, STEPS).position
    assert position == pytest.approx(tau * np.log(10), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(noise)
def test_the_exponential_fit_is_scipys_least_squares(deviation: np.ndarray) -> None:
    y = rising(deviation)

    def model(x: np.ndarray, p: float, a: float, tau: float) -> np.ndarray:
        return p - a * np.exp(-x / tau)

    for row, position in zip(y, ExponentialApproach(share=0.9)(y, STEPS).position, strict=True):
        (p, a, tau), _ = optimize.curve_fit(model, STEPS, row, (0.6, 0.6, 4.0))
        assert position == pytest.approx(tau * np.log(a / (0.1 * p)), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(noise)
def test_no_join_on_a_fine_grid_beats_the_broken_line(deviation: np.ndarray) -> None:
    y = rising(deviation)

    def misfit(row: np.ndarray, at: float) -> float:
        design = np.stack([np.ones(28), np.minimum(STEPS, at)], 1)
        return float(((row - design @ np.linalg.lstsq(design, row)[0]) ** 2).sum())

    for row, position in zip(y, BrokenLine()(y, STEPS).position, strict=True):
        best = min(misfit(row, at) for at in np.linspace(1, 26, 126))
        assert misfit(row, position) <= best + 1e-12


@each
@settings(max_examples=25, deadline=None)
@given(noise, st.floats(0.1, 50), st.floats(0.1, 50), st.floats(-100, 100))
def test_units_do_not_matter_and_the_axis_carries_over(
    estimator, deviation: np.ndarray, scale: float, stretch: float, shift: float
) -> None:
    y = rising(deviation)
    plain = estimator(y, STEPS)
    moved = estimator(scale * y, shift + stretch * STEPS)
    assert (moved.reason == plain.reason).all()
    assert moved.position == pytest.approx(shift + stretch * plain.position, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize(
    "estimator",
    [
        ShareOfPlateau(share=0.9, origin="first"),
        BrokenLine(after="flat"),
        BrokenLine(after="sloped"),
        ExponentialApproach(share=0.9, origin="first"),
    ],
    ids=repr,
)
@settings(max_examples=25, deadline=None)
@given(noise, st.floats(-10, 10))
def test_without_a_zero_of_its_own_a_quantity_may_be_shifted(
    estimator, deviation: np.ndarray, shift: float
) -> None:
    y = rising(deviation)
    plain, moved = estimator(y, STEPS), estimator(y + shift, STEPS)
    assert moved.position == pytest.approx(plain.position, rel=1e-5)


@each
def test_what_does_not_saturate_has_no_position_but_a_reason(estimator) -> None:
    curves = np.stack([0.6 * STEPS / 27, -STEPS, 0.02 * STEPS**2])
    found = estimator(curves, STEPS)
    assert np.isinf(found.position).all()
    assert all(REASONS[code] for code in found.reason)


@each
def test_too_few_points_are_said_to_be_too_few(estimator) -> None:
    found = estimator(np.array([[0.1, 0.6]]), np.array([0.0, 1.0]))
    assert REASONS[found.reason[0]] == "too few measured points"
    assert np.isinf(found.position[0])


@each
def test_curves_do_not_influence_each_other(estimator) -> None:
    y = rising(np.random.default_rng(0).normal(0, 0.05, (20, 28)))
    alone = [estimator(row[None], STEPS).position[0] for row in y]
    assert estimator(y, STEPS).position == pytest.approx(alone, rel=1e-9)
