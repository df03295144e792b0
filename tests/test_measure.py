"""Measuring leaves the record as it is, happens once for its inputs, and continues where it stopped."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics import METRICS
from stepscope.analysis.metrics.latency import Latency
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks.errors import StepscopeError

NEEDED = ["decode", "arcface", "sharpness", "latency"]


@pytest.fixture
def copied(measured_pocket: Path, tmp_path: Path) -> Path:
    """A measured run to change."""
    return Path(shutil.copytree(measured_pocket, tmp_path / "copy.zarr"))


def said(path: Path, metrics: list[str], settings: Settings | None = None) -> list[str]:
    """Metric and number of samples of each line that measuring printed."""
    lines: list[str] = []
    measure_all([path], metrics, settings, lines.append)
    return [line.removeprefix(f"{path}: ") for line in lines]


def files(path: Path) -> dict[str, str]:
    """Hash of every file of a folder."""
    return {
        str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in path.rglob("*")
        if f.is_file()
    }


def put(path: Path, group: str | None, **values: tuple) -> None:
    """Overwrite the second sample of variables."""
    for name, (dims, value) in values.items():
        one = xr.Dataset({name: (dims, value)})
        one.to_zarr(path, group=group, region={"sample": slice(1, 2)}, consolidated=False)


def test_the_record_keeps_its_bytes(pocket_run: Path, measured_pocket: Path) -> None:
    recorded, measured = files(pocket_run), files(measured_pocket)
    # the run's document names the group that is new, and a lock says who wrote it
    ours = {"zarr.json", "done/.lock"}
    kept = {n: h for n, h in measured.items() if not n.startswith("analysis/") and n not in ours}
    assert kept == {n: h for n, h in recorded.items() if n not in ours}
    before, after = (
        json.loads((run / "zarr.json").read_text()) for run in (pocket_run, measured_pocket)
    )
    assert after["attributes"] == before["attributes"]
    arrays = [told["consolidated_metadata"]["metadata"] for told in (before, after)]
    of_run = {n: document for n, document in arrays[1].items() if not n.startswith("analysis")}
    assert of_run == {n: d for n, d in arrays[0].items() if not n.startswith("analysis")}


@pytest.mark.parametrize("name", [*NEEDED, "arcface_final"])
def test_what_is_written_is_what_the_metric_declares(
    name: str, pocket_run: Path, measured_pocket: Path
) -> None:
    found = open_measured(measured_pocket)
    declared = METRICS[name]().quantities(open_recorded(pocket_run))
    assert declared
    for variable, q in declared.items():
        assert found[variable].dims == ("sample", *q.dims)
        assert found[variable].dtype == q.dtype
        about = {"units": q.units, "description": q.long_name, "direction": q.direction}
        assert about.items() <= found[variable].attrs.items()


def test_no_two_quantities_are_said_to_be_the_same(pocket_run: Path) -> None:
    run = open_recorded(pocket_run)
    said = [q for kind in METRICS.values() for q in kind().quantities(run).values()]
    assert all(q.units for q in said)
    assert len({q.long_name for q in said} - {""}) == len(said)


def test_a_variable_says_how_it_was_measured(measured_pocket: Path) -> None:
    found = open_measured(measured_pocket)
    for name in ("similarity", "found", "sharpness", "latency_seconds", "decoded"):
        about = found[name].attrs
        assert {"units", "long_name", "description", "direction", "provenance"} <= set(about)
        assert 1 <= len(about["long_name"].split()) <= 5
        assert json.loads(about["provenance"])["versions"]["torch"]
    used = json.loads(found["similarity"].attrs["provenance"])["settings"]
    assert used["det_size"] == 128
    judge = used["recognisers"][0]["files"]["recognition.onnx"]
    assert judge == hashlib.sha256(
        Path("pocket/models/insightface/models/pocket/recognition.onnx").read_bytes()
    ).hexdigest()  # fmt: skip
    assert found["found"].attrs["flag_meanings"].split()[3] == "no_reference"


def test_what_is_measured_is_left_alone(copied: Path) -> None:
    before = files(copied)
    assert said(copied, [*NEEDED, "arcface_final"]) == []
    assert files(copied) == before


def test_a_changed_sample_is_measured_again_with_all_that_is_made_of_it(copied: Path) -> None:
    x0 = xr.open_zarr(copied)["x0"][1:2].values
    put(copied, None, x0=(("sample", "step", "channel", "y", "x"), x0[:, ::-1]))
    old = open_measured(copied).load()
    assert said(copied, NEEDED) == [
        "decode, 1 of 2 samples",
        "arcface, 1 of 2 samples",
        "sharpness, 1 of 2 samples",
    ]
    new = open_measured(copied)
    for name in ("decoded", "similarity", "sharpness"):
        np.testing.assert_array_equal(new[name][0], old[name][0])
        assert not np.array_equal(new[name][1], old[name][1])
    np.testing.assert_array_equal(new["decoded"][1, 1:], old["decoded"][1, 2::-1])


def test_measuring_one_again_makes_what_hangs_on_it_unmeasured(copied: Path) -> None:
    x0 = xr.open_zarr(copied)["x0"][1:2].values
    put(copied, None, x0=(("sample", "step", "channel", "y", "x"), x0[:, ::-1]))
    assert said(copied, ["decode"]) == ["decode, 1 of 2 samples"]
    found = open_measured(copied)
    assert "decoded" in found
    assert "similarity" not in found
    assert "final_similarity" in found


def test_another_setting_measures_all_again(copied: Path) -> None:
    wide = Settings(det_size=160)
    assert said(copied, ["arcface_final"], wide) == ["arcface_final, 2 of 2 samples"]
    assert "similarity" not in open_measured(copied)  # its keypoints were the old ones
    assert said(copied, ["arcface_final"], wide) == []


def test_another_panel_replaces_the_axis(copied: Path) -> None:
    judge = "pocket/models/insightface/models/pocket"
    one = Settings(recognisers=[judge])
    assert said(copied, ["arcface_final"], one) == ["arcface_final, 2 of 2 samples"]
    found = open_measured(copied)
    assert found["recogniser"].values.tolist() == ["pocket"]
    assert "similarity" not in found
    assert "decoded" in found


def test_an_interrupted_measurement_continues(
    pocket_run: Path, tmp_path: Path, monkeypatch
) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "copy.zarr"))
    monkeypatch.setattr("stepscope.analysis.measure.FRAMES", 1)  # a sample at a time
    real, calls = Latency.__call__, []

    def killed(self: Latency, samples: xr.Dataset) -> dict[str, np.ndarray]:
        calls.append(samples["sample"].item())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, samples)

    monkeypatch.setattr(Latency, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        measure_all([path], ["latency"])
    with pytest.raises(StepscopeError, match="not measured"):
        open_measured(path)
    assert said(path, ["latency"]) == ["latency, 1 of 2 samples"]
    assert calls == [0, 1, 1]
    whole = open_measured(path)
    np.testing.assert_array_equal(
        whole["latency_seconds"].sel(part="denoiser"), whole["stage_seconds"].sel(stage="denoiser")
    )


def test_measured_runs_need_no_models(copied: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where the configuration's relative paths lead nowhere,
    monkeypatch.setattr("stepscope.probes.places.SHIPPED", tmp_path)  # and nothing ships
    lines = said(copied, ["arcface_final", "latency"])
    assert lines == ["arcface_final was measured before; its models are not on this machine"]
    with pytest.raises(StepscopeError, match="no insightface pack 'buffalo'"):
        measure_all([copied], ["arcface_final"], Settings(recognisers=["buffalo"]))


def test_a_second_run_that_lacks_something_stops_the_first_too(
    pocket_run: Path, tmp_path: Path
) -> None:
    first, second = (Path(shutil.copytree(pocket_run, tmp_path / n)) for n in ("a.zarr", "b.zarr"))
    cut = xr.open_zarr(second, chunks=None).drop_vars("stage_seconds").load()
    shutil.rmtree(second)
    for values in cut.variables.values():
        values.encoding = {}
    cut.to_zarr(second, consolidated=True, write_empty_chunks=True)
    with pytest.raises(StepscopeError, match=r"b\.zarr has no stage_seconds: latency cannot be"):
        measure_all([first, second], ["arcface_final", "latency"])
    assert not (first / "analysis").exists()


def test_a_wrong_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(StepscopeError, match="did you mean 'sharpness'"):
        measure_all([], ["sharpnes"])
