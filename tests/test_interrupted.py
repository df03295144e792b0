"""Of a step that an interrupted call did not run nothing is measured: no black image is taken for one."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxPipeline

from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.runs import open_measured
from stepscope.hooks import record

SCHNELL = "pocket/models/flux-schnell"
ALONG = ["decode", "arcface", "sharpness", "contrast", "blur_null"]
"""Metrics with a value for every step."""


def interrupt(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    pipe._interrupt = step == 1
    return values


def test_an_interrupted_call_is_measured_as_far_as_it_ran(tmp_path: Path) -> None:
    pipe: Any = FluxPipeline.from_pretrained(SCHNELL)
    pipe.set_progress_bar_config(disable=True)
    call = {"height": 128, "width": 128, "num_inference_steps": 4, "max_sequence_length": 32}
    with record(pipe, tmp_path / "run.zarr"):
        for callback in (interrupt, None):
            generator = torch.Generator().manual_seed(0)
            pipe("portrait photo", generator=generator, callback_on_step_end=callback, **call)
    metric = "perceptual_distance_pocket_step"
    measure_all([tmp_path / "run.zarr"], [metric], Settings(vae=f"{SCHNELL}/vae"))
    found = open_measured(tmp_path / "run.zarr")
    assert found.steps_run.values.tolist() == [2, 4]
    assert np.isfinite(found[metric].values).tolist() == [[True, True, False, False], [True] * 4]
    assert not found.decoded[0, 2:].values.any()
    assert found.decoded[0, :2].values.any()


@pytest.fixture(scope="module")
def halved(measured_pocket: Path, tmp_path_factory) -> Path:
    """The pocket's run as if its second sample had been interrupted after two of four steps."""
    path = tmp_path_factory.mktemp("halved") / "run.zarr"
    shutil.copytree(measured_pocket, path)
    run = xr.open_zarr(path, chunks=None)
    x0 = run["x0"][1:2].load()
    x0[:, 2:] = np.nan
    second = {"sample": slice(1, 2)}
    for values in (x0, xr.full_like(run["steps_run"][1:2].load(), 2)):
        one = values.drop_vars(values.coords).to_dataset(name=values.name)
        one.to_zarr(path, region=second, consolidated=False)
    lines: list[str] = []
    measure_all([path], ALONG, say=lines.append)
    assert f"{path}: sharpness, 1 of 2 samples" in lines  # the other one was measured before
    return path


@pytest.mark.parametrize("name", ["sharpness", "contrast", "similarity", "null_similarity"])
def test_metrics_along_the_run_end_where_it_does(name: str, halved: Path) -> None:
    values = open_measured(halved)[name].transpose("sample", "step", ...).values
    there = np.isfinite(values.reshape(*values.shape[:2], -1)).any(-1).tolist()
    assert there == [[True] * 4, [True, True, False, False]]
    assert np.isnan(values[1, 2:]).all()


def test_a_face_that_was_not_looked_for_is_not_missing(halved: Path) -> None:
    found = open_measured(halved)["found"]
    meanings = found.attrs["flag_meanings"].split()
    assert {meanings[flag] for flag in found[1, 2:].values.flat} == {"not_measured"}
    assert "not_measured" not in {meanings[flag] for flag in found[:, :2].values.flat}


def test_the_steps_that_ran_have_the_values_of_the_whole_run(
    halved: Path, measured_pocket: Path
) -> None:
    whole, cut = open_measured(measured_pocket), open_measured(halved)
    for name in ("sharpness", "similarity"):
        np.testing.assert_array_equal(cut[name][:, :2], whole[name][:, :2])
        np.testing.assert_array_equal(cut[name][0], whole[name][0])
