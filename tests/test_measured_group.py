"""What was measured is seen by whoever opens the run, and grows with it."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from stepscope.analysis.group import create
from stepscope.analysis.measure import measure_all
from stepscope.analysis.metrics.latency import Latency
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks import record
from stepscope.hooks.documents import Documents
from stepscope.hooks.errors import RunError
from stepscope.hooks.store import Run
from tests.cases import CASES


@pytest.fixture(autouse=True)
def strict():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def recorded_by_calls(tmp_path_factory) -> Path:
    """A pipeline's own run: two calls."""
    case, path = CASES["flux"], tmp_path_factory.mktemp("own") / "run.zarr"
    with record(case.pipe, path) as recording:
        for seed in (0, 1):
            recording.label([{"face": "ann"}])
            case(seeds=(seed,), steps=2)
    return path


@pytest.fixture
def path(recorded_by_calls, tmp_path) -> Path:
    return Path(shutil.copytree(recorded_by_calls, tmp_path / "run.zarr"))


def measured(path: Path) -> list[str]:
    lines: list[str] = []
    measure_all([path], ["latency"], say=lines.append)
    return lines


def check_seen(path: Path, samples: int) -> None:
    """By every reader that people use."""
    group = xr.open_zarr(path, group="analysis")
    assert {"latency_seconds", "measured_latency"} <= set(group.data_vars)
    assert group.sizes["sample"] == xr.open_zarr(path).sizes["sample"] == samples
    assert list(zarr.open_group(path).group_keys()) == ["analysis"]
    assert "latency_seconds" in zarr.open_group(path, mode="r")["analysis"]
    tree = xr.open_datatree(path, engine="zarr")
    assert list(tree.children) == ["analysis"]
    assert tree["analysis"]["latency_seconds"].shape[0] == samples
    assert list(xr.open_datatree(path, engine="zarr", consolidated=False).children) == ["analysis"]
    xr.testing.assert_identical(
        group.load(), xr.open_zarr(path, group="analysis", consolidated=False).load()
    )


def test_what_was_measured_is_seen_by_every_reader(path):
    before = {f: f.read_bytes() for f in path.rglob("*") if f.is_file()}
    recorded = xr.open_zarr(path).load()
    measured(path)
    check_seen(path, 2)
    xr.testing.assert_identical(xr.open_zarr(path).load(), recorded)
    changed = {f for f, data in before.items() if f.read_bytes() != data}
    assert {f.relative_to(path).as_posix() for f in changed} <= {"zarr.json", "done/.lock"}


def test_the_listing_is_zarrs_own(path):
    measured(path)
    ours = json.loads((path / "zarr.json").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(path)
    assert json.loads((path / "zarr.json").read_bytes()) == ours


def test_a_run_that_grows_keeps_it_and_measures_only_what_is_new(path):
    measured(path)
    old = xr.open_zarr(path, group="analysis").load()
    case = CASES["flux"]
    with record(case.pipe, path):
        case(seeds=(2, 3), steps=2)
    check_seen(path, 4)
    group = xr.open_zarr(path, group="analysis").load()
    xr.testing.assert_identical(group.isel(sample=[0, 1]), old)
    assert group["sample"].values.tolist() == [0, 1, 2, 3]
    run = xr.open_zarr(path).load()
    for name in ("face", "prompt", "seed", "sigma"):
        xr.testing.assert_identical(group.coords[name].variable, run[name].variable)
    assert len(set(group.seed.values.tolist())) == 4
    assert not group.measured_latency.values[2:].any()
    assert np.isnan(group.latency_seconds.values[2:]).all()
    with pytest.raises(RunError, match="is not measured"):
        open_measured(path)
    assert measured(path) == [f"{path}: latency, 2 of 4 samples"]
    assert open_measured(path).latency_seconds.sel(part="total").notnull().all()
    assert measured(path) == []


@pytest.mark.parametrize("name", ["face", "sigma"])
def test_a_coordinate_that_was_being_written_when_all_was_killed_is_written_again(path, name):
    measured(path)
    whole = xr.open_zarr(path, group="analysis").load()
    shutil.rmtree(path / "analysis" / name / "c")
    assert not xr.open_zarr(path, group="analysis").load().identical(whole)
    assert measured(path) == []  # what was measured stands
    xr.testing.assert_identical(xr.open_zarr(path, group="analysis").load(), whole)


def test_what_an_older_version_measured_becomes_known(path):
    """Before, the group was in no listing."""
    measured(path)
    documents = Documents(path)
    shutil.move(path / "analysis", path.parent / "analysis")
    documents.adopt("analysis")
    shutil.move(path.parent / "analysis", path / "analysis")
    assert list(zarr.open_group(path).group_keys()) == []
    case = CASES["flux"]
    with record(case.pipe, path):
        case(seeds=(2,), steps=2)
    assert measured(path) == [f"{path}: latency, 3 of 3 samples"]
    check_seen(path, 3)


def test_what_is_discarded_is_unknown_before_it_is_gone(path, monkeypatch):
    """Who reads it meanwhile finds no variable, not one of NaN."""
    measured(path)
    seen: list[bool] = []
    real = shutil.rmtree

    def remove(folder: Path) -> None:
        seen.append("measured_latency" in xr.open_zarr(path, group="analysis"))
        real(folder)

    monkeypatch.setattr(shutil, "rmtree", remove)
    monkeypatch.setattr(Latency, "revision", 7)
    assert measured(path) == [f"{path}: latency, 2 of 2 samples"]
    assert seen
    assert not any(seen)
    check_seen(path, 2)


def test_a_label_that_is_called_as_a_measurement_is_refused_before_it_is_measured(path):
    case = CASES["flux"]
    with record(case.pipe, path) as recording:
        recording.label([{"latency_seconds": 1.5}])
        case(seeds=(2,), steps=2)
    with pytest.raises(
        RunError, match="has a label 'latency_seconds', which is also the name of a variable"
    ):
        measured(path)
    assert not (path / "analysis").exists()


def test_two_who_measure_and_record_at_once_both_are_seen(path):
    run = Run.open(path)
    metric = Latency()
    recorded = open_recorded(path)
    settings = {"revision": 1}
    coordinates = {"sample": ("sample", [0, 1]), **metric.coordinates(recorded)}
    create(path, recorded, metric, coordinates, settings)
    run.annotate(note="a")  # it had been opened before the group was there
    assert xr.open_zarr(path).attrs["note"] == "a"
    assert list(zarr.open_group(path).group_keys()) == ["analysis"]
