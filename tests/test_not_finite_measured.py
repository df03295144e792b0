"""What is not finite in a run is NaN in its measurements, and costs the other samples nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.measure import measure_all
from stepscope.analysis.runs import open_measured
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import SAMPLE_COORDINATES

METRICS = [
    "decode",
    "arcface",
    "sharpness",
    "contrast",
    "blur_null",
    "perceptual_distance_pocket_step",
]


@pytest.fixture(scope="module")
def spoilt(measured_pocket: Path, tmp_path_factory) -> tuple[Path, list[str]]:
    """The pocket's run as if its second sample were not finite from its third step on."""
    path = tmp_path_factory.mktemp("spoilt") / "run.zarr"
    shutil.copytree(measured_pocket, path)
    plain = xr.open_zarr(path, chunks=None)
    x0, final = plain["x0"][1].values.copy(), plain["final_latents"][1].values.copy()
    x0[2:, 0, 0, 0], final[0, 0, 0] = np.nan, np.nan
    kept = {*SAMPLE_COORDINATES, "sample", "done"}
    names = [n for n, v in plain.variables.items() if v.dims[:1] == ("sample",) and n not in kept]
    values = {str(name): plain[name][1].values for name in names}
    told = np.array("x0 at step 2, latents at step 3, final_latents, image", object)
    Run.open(path).write(1, values | {"x0": x0, "final_latents": final, "not_finite": told})
    lines: list[str] = []
    measure_all([path], METRICS, say=lines.append)
    return path, lines


def test_it_is_said_and_only_that_sample_is_measured_again(spoilt) -> None:
    path, lines = spoilt
    assert any("1 of 2 samples hold numbers that are not finite" in line for line in lines)
    assert f"{path}: sharpness, 1 of 2 samples" in lines


@pytest.mark.parametrize("name", ["sharpness", "contrast", "similarity"])
def test_steps_that_are_finite_are_measured_and_others_are_missing(name: str, spoilt) -> None:
    found = open_measured(spoilt[0])[name].transpose("sample", "step", ...)
    there = np.isfinite(found.values.reshape(*found.shape[:2], -1)).any(-1)
    assert there.tolist() == [[True] * 4, [True, True, False, False]]


def test_nothing_is_said_of_an_image_that_is_none(spoilt, measured_pocket: Path) -> None:
    found, whole = open_measured(spoilt[0]), open_measured(measured_pocket)
    assert found["not_finite"].values.tolist()[0] == ""
    assert np.isnan(found["perceptual_distance_pocket_step"].values).all(1).tolist() == [
        False,
        True,
    ]
    for name in ("final_similarity", "final_keypoints", "sharpness"):
        if name != "sharpness":
            assert np.isnan(found[name][1]).all(), name
        np.testing.assert_array_equal(found[name][0], whole[name][0])
    flags = found["final_found"].attrs["flag_meanings"].split()
    assert {flags[flag] for flag in found["final_found"][1].values} == {"not_measured"}
