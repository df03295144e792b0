"""A run that cannot be read is answered with one line: what is missing, and the command that mends it."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.remake import recording
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks.errors import RunError
from stepscope.probes.composing import composed
from stepscope.probes.provenance import configuration
from stepscope.probes.study import Study
from tests.small import opened


@pytest.fixture
def copied(measured_pocket: Path, tmp_path: Path) -> Path:
    """A measured run to spoil."""
    return Path(shutil.copytree(measured_pocket, tmp_path / "copy.zarr"))


def line(path: Path) -> str:
    with pytest.raises(RunError) as caught:
        open_measured(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(path: Path, **attributes: object) -> None:
    file = path / "zarr.json"
    values = json.loads(file.read_text())
    values["attributes"] |= attributes
    file.write_text(json.dumps(values))


def test_a_measured_run_is_the_record_and_its_measurements(measured_pocket: Path, pocket_run: Path):
    found, recorded = open_measured(measured_pocket), opened(pocket_run)
    assert set(recorded.variables) < set(found.variables)
    kept = found[list(recorded)].drop_vars("log_snr").load()  # it is derived, and not recorded
    xr.testing.assert_identical(kept, recorded)
    assert {"similarity", "final_similarity", "sharpness", "decoded"} <= set(found)
    assert not [name for name in found if str(name).startswith("measured_")]
    assert found.attrs == recorded.attrs


def test_what_is_no_run(tmp_path: Path) -> None:
    assert "no run" in line(tmp_path / "absent.zarr")
    for name in ("a.zarr", "b.zarr", "c.zarr", "d.zarr"):
        (tmp_path / "of" / name).mkdir(parents=True)
    assert "did you mean 'a.zarr'" in line(tmp_path / "of" / "a.zar")
    inside = " ".join(str(tmp_path / "of" / name) for name in ("a.zarr", "b.zarr", "c.zarr"))
    assert f"it has no zarr.json: name the runs in it, {inside} and 1 more" in line(tmp_path / "of")
    assert "stepscope probe and stepscope.record make runs" in line(tmp_path / "of" / "a.zarr")
    (tmp_path / "folder").mkdir()
    assert "not a run" in line(tmp_path / "folder")
    (tmp_path / "folder" / "zarr.json").write_text('{"attributes": {}, "node_type": "group"}')
    assert "schema_version" in line(tmp_path / "folder")


def test_a_run_of_an_older_schema(copied: Path) -> None:
    change(copied, schema_version=0)
    said = line(copied)
    assert "older schema, version 0" in said
    assert "stepscope probe backbone=pocket_schnell adapter=pocket" in said


def test_an_unfinished_run_is_continued(copied: Path) -> None:
    xr.Dataset({"done": ("sample", [False])}).to_zarr(copied, region={"sample": slice(1, 2)})
    said = line(copied)
    assert "unfinished, 1 of 2" in said
    assert f"out={copied}" in said


def lost(file: Path) -> None:
    file.unlink()


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


AGAIN, ANEW = "makes those samples again: stepscope probe", "Remove it and record it again"


@pytest.mark.parametrize(
    ("harm", "name", "said", "cure"),
    [
        (lost, "latents/c/1/0/0/0/0", ": latents lacks 1 of its files", AGAIN),
        (lost, "contribution/c/0/0/0/0", ": contribution lacks 1 of its files", AGAIN),
        (lost, "block/c/0", ": block lacks 1 of its files", f"{ANEW}: stepscope probe"),
        (flipped, "attention_norm/c/0/0/0/0/0", ": ", f"{ANEW}: stepscope probe"),
        (cut, "zarr.json", ", its zarr.json cannot be read", ANEW.lower()),
    ],
)
def test_damage_is_named_with_its_cure(copied: Path, harm, name, said, cure) -> None:
    harm(copied / name)
    answer = line(copied)
    assert answer.startswith(f"{copied} is damaged{said}")
    assert cure in answer


def test_a_file_that_a_killed_writer_left_beside_the_others_is_no_damage(copied: Path) -> None:
    for name in ("latents/c/1/0/0/0", "face/c"):
        (copied / name / ".0.partial").write_bytes(b"half")
    assert open_recorded(copied).sizes["sample"] == 2


def test_a_run_that_was_not_measured(pocket_run: Path) -> None:
    assert line(pocket_run).endswith(f"stepscope measure {pocket_run}")
    assert open_recorded(pocket_run).sizes["sample"] == 2


def test_a_metric_with_a_sample_missing_is_left_out(copied: Path) -> None:
    marks = xr.Dataset({"measured_arcface": ("sample", np.zeros(1, np.int64))})
    marks.to_zarr(copied, group="analysis", region={"sample": slice(1, 2)}, consolidated=False)
    found = open_measured(copied)
    assert "similarity" not in found
    assert "final_similarity" in found


def test_the_command_makes_the_same_configuration() -> None:
    words = [
        "backbone=pocket_dev",
        "adapter=pocket",
        "adapter.scale=0.25",
        "faces=[a face.png,b.png]",
        "prompts=['a man, smiling', \"it's 5\"]",
        "steps=7",
        "record.level=tokens",
    ]
    made = configuration(Study.from_config(composed(words)))
    said = shlex.split(recording({"configuration": made}, Path("r.zarr")))
    assert said[:2] == ["stepscope", "probe"]
    assert configuration(Study.from_config(composed(said[2:]))) == made


def test_the_command_for_a_run_of_another_pipeline() -> None:
    assert "hooks.record" in recording({}, Path("r.zarr"))
