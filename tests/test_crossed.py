"""Prompts and seeds drawn with the faces: textbook cases, and coverage where prompts or faces differ."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stepscope.analysis.bands import Band
from stepscope.analysis.bootstrap import JackknifeT
from stepscope.analysis.cells import average
from stepscope.analysis.crossed import crossed
from stepscope.analysis.synthetic import Hinge, Study
from stepscope.hooks.errors import StepscopeError

FREE = Study(Hinge(9.3), prompts=3, seeds=2, missing=0)


def end(study: Study, rng: np.random.Generator):
    return study(rng).isel(step=-1, drop=True)


def test_the_error_is_that_of_faces_prompts_and_seeds_together() -> None:
    values = end(FREE, np.random.default_rng(0))
    table = values.values.reshape(12, 3, 2)
    squares = [
        table.mean(axis).var(ddof=1) / n for axis, n in (((1, 2), 12), ((0, 2), 3), ((0, 1), 2))
    ]
    free = sum(squares) ** 2 / sum(v**2 / n for v, n in zip(squares, (11, 2, 1), strict=True))
    found = crossed(values, level=0.9)
    half = stats.t.ppf(0.95, free) * np.sqrt(sum(squares))
    assert found["estimate"].item() == pytest.approx(table.mean())
    assert (found["high"] - found["estimate"]).item() == pytest.approx(half)
    assert found.attrs["drawn"] == ["12 faces", "3 prompts", "2 seeds"]
    assert found.attrs["given"] == []


def test_a_factor_of_one_level_is_given_and_faces_alone_are_not_crossed() -> None:
    values = end(FREE, np.random.default_rng(0))
    one_seed = crossed(values.isel(sample=values["seed"].values == 0), level=0.95)
    assert one_seed.attrs["given"] == ["seed"]
    assert np.isfinite(one_seed["low"])
    alone = values.isel(
        sample=(values["seed"].values == 0) & (values["prompt"] == "prompt 0").values
    )
    faces = crossed(alone, level=0.95)
    assert np.isnan(faces["low"])
    assert faces.attrs["without_interval"] == "one prompt, one seed"
    with pytest.raises(StepscopeError, match="no samples"):
        crossed(values.isel(sample=slice(0)), level=0.95)


def test_the_estimate_is_that_of_the_faces_interval_whatever_is_missing() -> None:
    values = end(replace(FREE, missing=0.4), np.random.default_rng(1))
    found = crossed(values, level=0.95)
    assert found["estimate"].item() == pytest.approx(average(values, JackknifeT())["mean"].item())
    assert found["low"] < found["estimate"] < found["high"]


def test_prompts_that_move_all_faces_are_held_by_the_crossed_interval_alone() -> None:
    """On the same studies: an interval over faces takes the prompts that it was given for all."""
    rng, truth = np.random.default_rng(2), 0.6
    study = replace(FREE, faces=24, prompt_sd=0.05, cell_sd=0.1)
    held = np.zeros((2, 200), bool)
    for k in range(held.shape[1]):
        values = end(study, rng)
        for row, found in enumerate((crossed(values, level=0.95), average(values, JackknifeT()))):
            held[row, k] = found["low"] <= truth <= found["high"]
    assert held[0].mean() > 0.91
    assert held[1].mean() < 0.75


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_band_holds_the_whole_curve_and_pointwise_intervals_do_not(correlation: float) -> None:
    study = Study(Hinge(9.3), faces=8, missing=0, step_correlation=correlation, face_step_sd=0.05)
    truth, rng = study.population(), np.random.default_rng(3)
    held = np.zeros((2, 100), bool)
    for k in range(held.shape[1]):
        values = study(rng)
        for row, found in enumerate((Band(resamples=199)(values), average(values, JackknifeT()))):
            inside = (found["low"] <= truth) & (truth <= found["high"])
            held[row, k] = inside.values[1:].all()  # all curves start at 0 exactly
    assert held[0].mean() == pytest.approx(0.95, abs=0.055)
    assert held[1].mean() < 0.85


def test_a_band_of_one_point_is_students_interval() -> None:
    values = end(FREE, np.random.default_rng(4))
    band, alone = Band(resamples=4999)(values), average(values, JackknifeT())
    assert band["mean"].item() == pytest.approx(alone["mean"].item())
    assert (band["high"] - band["low"]).item() == pytest.approx(
        (alone["high"] - alone["low"]).item(), rel=0.05
    )


def test_a_band_is_told_from_what_was_found() -> None:
    values = Study(Hinge(9.3), missing=0.5)(np.random.default_rng(5))
    gone = values.where(values["step"] != 4)
    found = Band(resamples=99)(gone)
    assert np.isnan(found["mean"].values[4])
    assert np.isfinite(found["low"].values[[3, 5]]).all()
    with pytest.raises(StepscopeError, match="at least 2 faces, got 1"):
        Band()(values.isel(sample=values["face"].values == "face 0"))
