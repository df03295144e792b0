"""Runs of schema 2 are measured and added to, and keep their form: two, as they were recorded then."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.measure import measure_all
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks import record
from stepscope.hooks.documents import Documents
from tests.cases import CASES
from tests.models import REFERENCE

METRICS = ["decode", "arcface", "sharpness", "latency"]


@pytest.fixture
def unpacked(tmp_path):
    """`unpacked(name)`: a copy of one of the runs."""

    def of(name: str) -> Path:
        shutil.unpack_archive(REFERENCE / "version-2" / f"{name}.zip", tmp_path)
        return tmp_path / f"{name}.zarr"

    return of


def test_what_was_measured_stands_and_gains_its_coordinates(unpacked):
    path = unpacked("pocket")
    before = xr.open_zarr(path, group="analysis").load()
    assert not {"face", "face_found", "row"} & set(before.variables)
    lines: list[str] = []
    measure_all([path], METRICS, say=lines.append)
    assert lines == []  # nothing is measured again
    run, after = xr.open_zarr(path), xr.open_zarr(path, group="analysis").load()
    for name in before.variables:
        xr.testing.assert_equal(after[name].variable, before[name].variable)
    for name in ("face", "prompt", "seed", "sigma"):
        xr.testing.assert_equal(after.coords[name].variable, run[name].variable.load())
    np.testing.assert_array_equal(after.face_found, after.found == 1)
    assert after.row.values.tolist() == [-i for i in range(128)]
    tree = xr.open_datatree(path, engine="zarr")
    assert tree["analysis"]["similarity"].face.values.tolist() == run.face.values.tolist()
    found = open_measured(path)
    assert found.attrs["weights"] == run.attrs["weights"]


def test_samples_are_added_to_it(unpacked):
    path = unpacked("recorded")
    before = xr.open_zarr(path).load()
    measure_all([path], ["latency"])
    case = CASES["flux"]
    with record(case.pipe, path) as recording:
        recording.label([{"face": "eve"}])
        case(seeds=(9,), steps=2)
    after = xr.open_zarr(path).load()
    xr.testing.assert_identical(after.isel(sample=[0, 1]), before)
    assert after.face.values.tolist() == ["ann", "bob", "eve"]
    assert after.block_index.values.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]  # as it was meant
    group = xr.open_zarr(path, group="analysis").load()
    assert group.face.values.tolist() == ["ann", "bob", "eve"]
    assert group.seed.values.tolist() == [7, 8, 9]
    assert np.isfinite(after.contribution if "contribution" in after else after.x0).all()
    assert open_recorded(path).attrs == after.attrs


def test_its_attributes_keep_their_form(unpacked):
    path = unpacked("recorded")
    Documents(path).annotate(note="a")
    found = xr.open_zarr(path).attrs
    assert found["note"] == "a"
    assert isinstance(found["models"], dict)
    assert found["schema_version"] == 2
