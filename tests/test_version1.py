"""Runs of schema 1 are measured, and not added to: two of them, as they were recorded at their time."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks import record
from stepscope.hooks.errors import RunError
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import SAMPLE_COORDINATES
from tests.cases import CASES
from tests.models import INFINITE_YOU, REFERENCE


def unpacked(name: str, folder: Path) -> Path:
    shutil.unpack_archive(REFERENCE / "version-1" / f"{name}.zip", folder)
    return folder / f"{name}.zarr"


def test_a_run_of_the_command_line_is_measured(tmp_path):
    path = unpacked("pocket", tmp_path)
    measure_all([path], ["decode", "arcface", "sharpness", "latency"])
    found = open_measured(path)
    assert {"decoded", "similarity", "sharpness", "latency_seconds"} <= set(found)
    assert np.isfinite(found.sharpness.sel(region="image")).all()
    assert list(xr.open_datatree(path, engine="zarr").children) == ["analysis"]


def test_a_pipelines_own_run_is_measured(tmp_path):
    path = unpacked("recorded", tmp_path)
    measure_all([path], ["decode", "latency"], Settings(vae=str(INFINITE_YOU / "flux-dev" / "vae")))
    found = open_measured(path)
    np.testing.assert_array_equal(found.decoded[:, -1], found.image)
    assert found.face.values.tolist() == ["ann", "bob"]
    assert found.seed.values.tolist() == [7, 8]


def test_what_it_did_not_record_is_not_known(tmp_path):
    run = open_recorded(unpacked("recorded", tmp_path))
    assert set(SAMPLE_COORDINATES) <= set(run.coords)
    for name in ("call", "steps_run"):
        assert run[name].values.tolist() == [-1, -1]
    for name in ("negative_prompt", "generator", "arguments", "adapters"):
        assert run[name].values.tolist() == ["", ""]
        assert run[name].attrs["description"] == SAMPLE_COORDINATES[name].long_name


def test_nothing_is_added_to_it(tmp_path):
    path = unpacked("recorded", tmp_path)
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    said = rf"{path} has schema version 1; this stepscope writes 4, and reads it: it can be measured, but"
    with pytest.raises(RunError, match=said):
        Run.open(path)
    case = CASES["flux"]
    with pytest.raises(RunError, match=said), record(case.pipe, path):
        case(seeds=(0,), steps=1)
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*")} == before
