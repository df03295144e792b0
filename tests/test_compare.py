"""Paired effects: joined by cell, nothing dropped silently, known effects and components found."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepscope.analysis.bootstrap import ExpandedPercentile, JackknifeT
from stepscope.analysis.compare import compare, components, pair
from stepscope.analysis.synthetic import Hinge, Study
from stepscope.hooks.errors import StepscopeError

EXACT = Study(Hinge(9.0), missing=0)
INTERVAL = JackknifeT()


def record(study: Study = EXACT, seed: int = 0) -> xr.DataArray:
    return study(np.random.default_rng(seed))


def endpoint(seed: int = 0, study: Study = EXACT) -> xr.DataArray:
    return record(study, seed).isel(step=-1)


def test_one_cell_a_face_is_the_paired_t_test() -> None:
    study = Study(Hinge(9.0), faces=15, prompts=1, seeds=1, missing=0)
    a, b = endpoint(0, study), endpoint(1, study)
    found = compare(a, b, INTERVAL, p_value=True)
    known = stats.ttest_rel(b.values, a.values)
    bounds = known.confidence_interval()
    difference = b.values - a.values
    assert found["p_value"].item() == pytest.approx(known.pvalue)
    assert (found["low"].item(), found["high"].item()) == pytest.approx((bounds.low, bounds.high))
    assert found["d_z"].item() == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert np.isnan(found["icc"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_order_and_unit_of_the_input_do_not_matter(seed: int, scale: float, shift: float) -> None:
    a, b = endpoint(0), endpoint(1)
    plain = compare(a, b, INTERVAL)
    order = np.random.default_rng(seed).permutation(b.sizes["sample"])
    moved = compare(shift + scale * a, (shift + scale * b).isel(sample=order), INTERVAL)
    for word in ("effect", "low", "high", "between_sd", "within_sd"):
        assert moved[word].item() == pytest.approx(scale * plain[word].item(), abs=1e-9)
    for word in ("d_z", "d_z_low", "d_z_high", "icc", "design_effect", "pairs"):
        assert moved[word].item() == pytest.approx(plain[word].item())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.floats(0, 0.15))
def test_the_effect_size_agrees_with_the_test_beside_it(
    seed: int, faces: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    a = endpoint(seed, Study(Hinge(9.0), faces=faces, missing=0.1))
    found = compare(a, a + shift + rng.normal(0, 0.1, a.shape), INTERVAL)
    told = found["low"].item() > 0 or found["high"].item() < 0
    assert told == (found["d_z_low"].item() > 0 or found["d_z_high"].item() < 0)
    assert np.sign(found["d_z"].item()) == np.sign(found["effect"].item())
    assert found["d_z_low"] < found["d_z"] < found["d_z_high"]


def test_turning_the_comparison_round_turns_its_sign() -> None:
    a, b = endpoint(0), endpoint(1)
    there, back = compare(a, b, INTERVAL), compare(b, a, INTERVAL)
    assert back["effect"].item() == pytest.approx(-there["effect"].item())
    assert back["low"].item() == pytest.approx(-there["high"].item())


def test_missing_and_unpaired_cells_are_counted_apart() -> None:
    a, b = endpoint(0), endpoint(1) + 0.1
    a = a.where(a["face"] != "face 3")
    b = b.where(~((b["face"] == "face 4") & (b["seed"] == 1)))
    found = compare(a.isel(sample=slice(6, None)), b.isel(sample=slice(0, -2)), INTERVAL)
    counts = {
        "pairs": 64 - 6 - 3,
        "faces": 10,
        "missing_baseline": 6,
        "missing_changed": 3,
        "unpaired_baseline": 2,
        "unpaired_changed": 6,
    }
    assert {word: found[word].item() for word in counts} == counts


def test_a_missing_face_is_not_imputed() -> None:
    a = endpoint(0)
    b = (a + 0.1).where(a["prompt"] == "prompt 1")
    found = compare(a, b, INTERVAL)
    assert found["effect"].item() == pytest.approx(0.1)
    assert found["pairs"].item() == 24


def test_curves_are_compared_at_every_step_and_different_runs_at_their_ends() -> None:
    a, b = record(seed=0), record(seed=1)
    along = compare(a, b, INTERVAL)
    end = compare(a.isel(step=-1), b.isel(step=-1), INTERVAL)
    assert along["effect"].dims == ("step",)
    assert along["effect"].values[-1] == pytest.approx(end["effect"].item())
    assert along["d_z_low"].values[-1] == pytest.approx(end["d_z_low"].item())
    with pytest.raises(StepscopeError, match=r"different points on 'step' \(28 and 4\)"):
        pair(a, b.isel(step=slice(4)))


def test_conditions_without_a_common_cell_are_refused() -> None:
    a = endpoint(0)
    with pytest.raises(StepscopeError, match="no face x prompt x seed is in both"):
        compare(a, a.assign_coords(seed=a["seed"] + 100), INTERVAL)


def test_components_of_an_unbalanced_study_are_recovered() -> None:
    rng = np.random.default_rng(0)
    base = endpoint(0, Study(Hinge(9.0), faces=2000, missing=0))
    between = np.repeat(rng.normal(0, 0.03, 2000), base.sizes["sample"] // 2000)
    values = base.copy(data=between + rng.normal(0, 0.1, base.shape))
    found = components(values.where(rng.random(base.shape) > 0.3))
    assert np.sqrt(found.between) == pytest.approx(0.03, rel=0.1)
    assert np.sqrt(found.within) == pytest.approx(0.1, rel=0.02)


def test_components_of_a_balanced_study_are_the_textbooks() -> None:
    values = endpoint(0)
    table = values.values.reshape(12, 6)
    mean_square = 6 * table.mean(1).var(ddof=1)
    inside = table.var(1, ddof=1).mean()
    found = components(values)
    assert found.within.item() == pytest.approx(inside)
    assert found.between.item() == pytest.approx((mean_square - inside) / 6)
    assert stats.f_oneway(*table).statistic == pytest.approx(mean_square / inside)


def test_results_carry_units_names_and_the_interval() -> None:
    a = endpoint(0).assign_attrs(units="s")
    found = compare(a, endpoint(1), ExpandedPercentile(resamples=99))
    assert found["effect"].attrs["units"] == found["between_sd"].attrs["units"] == "s"
    assert all(v.attrs["long_name"] for v in found.data_vars.values())
    assert "resamples=99" in found.attrs["interval"]
