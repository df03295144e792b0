"""The window of labelled curves: modes kept apart, missing faces counted, known answers found."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepscope.analysis.bootstrap import ExpandedPercentile, JackknifeT
from stepscope.analysis.cells import BELIEVED, average, detection_rate, face_means
from stepscope.analysis.drift import drift, lag, lift
from stepscope.analysis.saturation import BrokenLine, ExponentialApproach, ShareOfPlateau, panel
from stepscope.analysis.synthetic import Hinge, Study
from stepscope.analysis.windows import sensitivity, window, windows
from stepscope.hooks.errors import StepscopeError

INTERVAL = ExpandedPercentile(resamples=199)
SHARE = ShareOfPlateau(share=0.9)
EXACT = Study(Hinge(9.3), face_step_sd=0, step_sd=0, missing=0)
NOISY = Study(Hinge(9.3), missing=0.3)


def record(study: Study = EXACT, seed: int = 0) -> xr.DataArray:
    return study(np.random.default_rng(seed))


def budgets(curves: xr.DataArray) -> xr.DataArray:
    return curves.rename(step="budget").assign_coords(budget=curves["step"].values + 1)


@pytest.mark.parametrize(
    ("estimator", "known"), [(SHARE, 0.9 * 9.3), (BrokenLine(), 9.3)], ids=repr
)
def test_a_record_without_noise_gives_the_known_step_and_its_sigma(estimator, known) -> None:
    step = window(record(), estimator, INTERVAL, against="step")
    sigma = window(record(), estimator, INTERVAL, against="sigma")
    assert step["position"].item() == pytest.approx(known)
    assert sigma["position"].item() == pytest.approx(1 - known / 28)
    assert step["reason"].item() == ""
    assert (step.attrs["mode"], step["position"].attrs["units"]) == ("trajectory", "step")
    assert step["estimator"].item() == repr(estimator)


@pytest.mark.parametrize("estimator", panel(0.9), ids=repr)
def test_bounds_are_in_order_on_both_axes(estimator) -> None:
    for against in ("step", "sigma"):
        found = window(record(NOISY), estimator, INTERVAL, against=against)
        assert found["low"] <= found["position"] <= found["high"]


def test_on_log_snr_a_window_ends_at_that_of_its_step_and_noise_alone_has_no_place() -> None:
    curves = record()
    sigma = curves["sigma"].values
    with np.errstate(divide="ignore"):
        place = 2 * (np.log(1 - sigma) - np.log(sigma))
    curves = curves.assign_coords(log_snr=("step", place))
    assert place[0] == -np.inf
    with pytest.raises(StepscopeError, match="'log_snr' must be finite at every point"):
        window(curves, SHARE, INTERVAL, against="log_snr")
    step, found = (
        window(curves.isel(step=slice(1, None)), SHARE, INTERVAL, against=against)
        for against in ("step", "log_snr")
    )
    wanted = np.interp(step["position"].item(), np.arange(1, len(place)), place[1:])
    assert found["position"].item() == pytest.approx(wanted)
    assert found["low"] <= found["position"] <= found["high"]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_samples_does_not_matter(seed: int) -> None:
    curves = record(NOISY)
    shuffled = curves.isel(sample=np.random.default_rng(seed).permutation(curves.sizes["sample"]))
    xr.testing.assert_allclose(
        window(curves, SHARE, INTERVAL, against="step"),
        window(shuffled, SHARE, INTERVAL, against="step"),
    )


def test_missing_faces_are_left_out_counted_and_not_imputed() -> None:
    curves = record()
    gaps = curves.where(~((curves["face"] == "face 0") & (curves["step"] < 5)))
    gaps = gaps.where(gaps["step"] != 3)
    found = window(gaps, SHARE, INTERVAL, against="step")
    each = curves.sizes["sample"] // 12
    assert found["detected"].values[[0, 3, 9]].tolist() == [11 * each, 0, 12 * each]
    assert found["position"].item() == pytest.approx(0.9 * 9.3)


def test_a_face_counts_once_however_often_it_was_found() -> None:
    curves = record()
    few = (curves["face"] == "face 1") & ((curves["prompt"] != "prompt 0") | (curves["seed"] != 0))
    thin = curves.where(~few, drop=False)
    mean = face_means(thin)
    np.testing.assert_array_equal(mean.detected[:2, 0], [6, 1])
    result = average(thin, JackknifeT())
    np.testing.assert_allclose(result["mean"], mean.mean.mean(0))
    assert result["faces"].values.tolist() == [12] * 28
    assert result["detected"].values.tolist() == [12 * 6 - 5] * 28


def test_a_curve_that_never_saturates_has_no_position_and_says_why() -> None:
    curves = record(replace(EXACT, shape=Hinge(60.0)))
    found = window(curves, SHARE, INTERVAL, against="step")
    assert np.isnan(found["position"])
    assert "still rising" in found["reason"].item()
    assert found["high"] == np.inf
    assert window(curves, SHARE, INTERVAL, against="sigma")["low"] == -np.inf


def test_modes_are_told_and_never_mixed() -> None:
    curves = record()
    found = window(budgets(curves), SHARE, INTERVAL, against="step")
    assert found.attrs["mode"] == "budget"
    assert found["position"].item() == pytest.approx(0.9 * 9.3 + 1)
    assert found["position"].attrs["units"] == "steps"
    both = curves.expand_dims(budget=[4, 28])
    with pytest.raises(StepscopeError, match="'sample', 'step'"):
        window(both, SHARE, INTERVAL, against="step")
    lengths = curves.assign_coords(steps=("sample", [4, 28] * (curves.sizes["sample"] // 2)))
    with pytest.raises(StepscopeError, match="runs with 4, 28 steps are mixed"):
        window(lengths, SHARE, INTERVAL, against="step")


def test_a_cell_that_comes_twice_is_a_mixture() -> None:
    twice = xr.concat([record(), record(seed=1)], "sample")
    with pytest.raises(StepscopeError, match=r"face 'face 0', prompt 'prompt 0', seed 0 twice"):
        window(twice, SHARE, INTERVAL, against="step")


def test_an_axis_that_is_missing_or_turns_back_is_refused() -> None:
    curves = record()
    with pytest.raises(StepscopeError, match="no coordinate 'sigma' on 'step' alone"):
        window(curves.drop_vars("sigma"), SHARE, INTERVAL, against="sigma")
    with pytest.raises(StepscopeError, match="'step' must rise"):
        window(curves.isel(step=slice(None, None, -1)), SHARE, INTERVAL, against="step")
    with pytest.raises(StepscopeError, match="no coordinate 'seed'"):
        window(curves.drop_vars("seed"), SHARE, INTERVAL, against="step")


def test_several_estimators_and_shares_stand_side_by_side() -> None:
    curves = record(NOISY)
    side = windows(curves, panel(0.9), INTERVAL, against="step")
    assert side["position"].dims == ("estimator",)
    assert len(set(side["estimator"].values.tolist())) == len(panel(0.9))
    alone = window(curves, BrokenLine(), INTERVAL, against="step")
    assert alone["position"].item() in side["position"].values
    shares = [0.5, 0.8, 0.9]
    for estimator in (SHARE, ExponentialApproach(share=0.5)):
        swept = sensitivity(curves, estimator, shares, INTERVAL, against="step")
        assert swept["share"].values.tolist() == shares
        assert (np.diff(swept["position"]) > 0).all()


def test_drift_is_peak_minus_end_and_does_not_invent_one() -> None:
    falling = record(replace(EXACT, shape=Hinge(9.0, slope=-0.01)))
    found = drift(falling, JackknifeT())
    plateau = face_means(falling.isel(step=9)).mean
    assert found["drift"].item() == pytest.approx(0.18 * plateau.mean())
    assert found["plain"].item() == pytest.approx(0.18 * plateau.mean())
    assert found["placed"].values.tolist() == [9, 9]
    flat = [drift(record(NOISY, seed), JackknifeT()) for seed in range(40)]
    assert min(one["plain"].item() for one in flat) >= 0
    fitted, plain = (np.mean([one[k].item() for one in flat]) for k in ("drift", "plain"))
    assert abs(fitted) < 0.25 * plain


def test_the_peak_of_a_half_is_placed_by_the_other() -> None:
    curves = record()
    order = sorted({f"face {k}" for k in range(12)})
    late = curves["face"].isin(order[1::2])
    bumped = curves + 0.5 * ((curves["step"] == 20) & late) + 0.5 * ((curves["step"] == 15) & ~late)
    found = drift(bumped, JackknifeT())
    assert found["placed"].values.tolist() == [15, 20]
    assert found["per_face"].values == pytest.approx(np.zeros(12), abs=1e-12)  # the other's bump


def test_what_drift_few_faces_could_see_is_told_and_seen() -> None:
    study = replace(NOISY, faces=6)
    smallest = np.mean([drift(record(study, s), JackknifeT())["detectable"] for s in range(40)])
    seen = []
    for seed in range(100):
        curves = record(study, 100 + seed)
        fallen = curves - float(smallest) * (curves["step"] == 27)  # whatever peak is named
        seen.append(drift(fallen, JackknifeT())["low"] > 0)
    assert np.mean(seen) == pytest.approx(0.8, abs=0.12)


def test_drift_leaves_out_a_face_that_was_not_found_at_the_end() -> None:
    curves = record()
    lost = curves.where(~((curves["face"] == "face 1") & (curves["step"] == 27)))
    found = drift(lost, JackknifeT())
    assert (found.attrs["faces"], found.attrs["faces_missing"]) == (11, 1)
    with pytest.raises(StepscopeError, match="needs at least 2 faces with measurements"):
        drift(curves.where(curves["step"] < 27), JackknifeT())


def test_the_detection_rate_is_the_share_found_and_never_has_no_width() -> None:
    curves = record(NOISY).isel(step=5)
    found = detection_rate(curves)
    assert found["rate"].item() == pytest.approx(float(curves.notnull().mean()))
    assert 0 < found["low"] < found["rate"] < found["high"] < 1
    whole = detection_rate(record().isel(step=5))
    z = stats.norm.ppf(0.975)
    n = 72 / (1 + 5 * BELIEVED) * (z / stats.t.ppf(0.975, 11)) ** 2
    assert whole["low"].item() == pytest.approx(n / (n + z**2))
    assert whole["high"].item() == pytest.approx(1)


def test_all_of_a_few_faces_is_weak_evidence_however_many_their_samples() -> None:
    """12 faces that were always found: Clopper and Pearson's lower end for 12 of 12 is .735."""
    many = detection_rate(record(replace(EXACT, seeds=6)).isel(step=5))
    few = detection_rate(record(replace(EXACT, seeds=1)).isel(step=5))
    assert 0.735 < few["low"] < many["low"] < 0.9


def test_a_detection_rate_is_less_sure_where_faces_differ() -> None:
    cells = record().isel(step=5)
    free = cells.where((cells["seed"] != 0) | (cells["prompt"] != "prompt 0"))
    found = detection_rate(free)  # one of six lost, of every face: no spread
    known = stats.binomtest(60, 72).proportion_ci(method="wilson")
    assert found["high"] - found["low"] > known.high - known.low
    lost = cells.where((cells["face"] != "face 3") & (cells["face"] != "face 7"))  # as many
    uneven = detection_rate(lost)
    assert uneven["rate"].item() == pytest.approx(found["rate"].item())
    assert uneven["high"] - uneven["low"] > 1.3 * (found["high"] - found["low"])


@pytest.mark.parametrize("faces", [1, 2, 3, 4])
def test_fewer_than_five_faces_have_a_position_and_no_interval(faces: int) -> None:
    few = record(replace(NOISY, faces=faces))
    for found, word in (
        (window(few, SHARE, INTERVAL, against="step"), "position"),
        (lag(few, few, SHARE, INTERVAL, against="step"), "lag"),
    ):
        assert np.isfinite(found[word])
        assert np.isnan([found["low"], found["high"]]).all()
        assert found.attrs["without_interval"] == f"needs 5 faces; here {faces}"
    five = window(record(replace(NOISY, faces=5)), SHARE, INTERVAL, against="step")
    assert np.isfinite(five["low"])
    assert "without_interval" not in five.attrs


def test_a_window_that_starts_above_its_share_is_no_window() -> None:
    above = record() + 6.0
    found = window(above, SHARE, INTERVAL, against="step")
    assert np.isnan(found["position"])
    assert found["reason"].item().startswith("starts above")
    assert found["low"] == -np.inf
    assert window(above, SHARE, INTERVAL, against="sigma")["high"] == np.inf
    early = lag(above, record(), SHARE, INTERVAL, against="step", censored_at_start=True)
    assert early["lag"].item() == pytest.approx(0.9 * 9.3)


def test_runs_whose_adapter_is_switched_off_are_a_mode_of_their_own() -> None:
    curves = record().rename(step="adapter_steps")
    found = window(curves, SHARE, INTERVAL, against="step")
    assert found.attrs["mode"] == "committed"
    assert found["position"].attrs["long_name"] == "number of steps that had the adapter"
    assert found["detected"].dims == ("adapter_steps",)


def test_lag_is_the_difference_of_two_windows_in_step_and_turns_sign_in_sigma() -> None:
    late = record(replace(EXACT, shape=Hinge(14.0)))
    found = lag(record(), late, BrokenLine(), INTERVAL, against="step")
    assert found["lag"].item() == pytest.approx(14 - 9.3)
    sigma = lag(record(), late, BrokenLine(), INTERVAL, against="sigma")
    assert sigma["lag"].item() == pytest.approx(-(14 - 9.3) / 28)
    with pytest.raises(StepscopeError, match="different points"):
        lag(record(), late.isel(step=slice(20)), SHARE, INTERVAL, against="step")
    with pytest.raises(StepscopeError, match="different cells"):
        lag(record(), late.isel(sample=slice(6)), SHARE, INTERVAL, against="step")


def test_lift_is_full_minus_weak_at_every_step() -> None:
    curves = record()
    found = lift(0.25 * curves, curves, JackknifeT())
    np.testing.assert_allclose(found["effect"], 0.75 * face_means(curves).mean.mean(0))
