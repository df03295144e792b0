"""A lost, cut or flipped file of a run is an error or made again, never a number."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.hooks.errors import RunError
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import FOUND_COORDINATES
from tests.cases import CASES
from tests.filled import filled
from tests.shell import tiny


def test_an_empty_file_is_a_lost_one(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    (path / "length" / "c" / "1" / "0").write_bytes(b"")
    assert Run.open(path).done.tolist() == [True, False]
    with pytest.raises(RunError, match="cut off"):
        Run.open(path).read("length")


@pytest.mark.parametrize(
    ("text", "answer"),
    [('{"zarr_format"', "cannot be read"), ("{}", "schema version None")],
)
def test_a_damaged_root_document_is_answered_in_one_line(tmp_path, text, answer):
    path = tmp_path / "run.zarr"
    filled(path)
    (path / "zarr.json").write_text(text)
    with pytest.raises(RunError, match=answer):
        Run.open(path)


def chunks(path: Path) -> list[Path]:
    """Of every array; a lock is none."""
    files = (f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
    return sorted(f for f in files if f.name != "zarr.json")


def test_flipped_byte_in_any_chunk_is_an_error(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    assert {f.relative_to(path).parts[0] for f in chunks(path)} == set(xr.open_zarr(path).variables)
    rng = np.random.default_rng(0)
    for chunk in chunks(path):
        good = chunk.read_bytes()
        for place in {0, len(good) - 1, *rng.integers(len(good), size=4).tolist()}:
            bad = bytearray(good)
            bad[place] ^= 1 << int(rng.integers(8))
            chunk.write_bytes(bytes(bad))
            with pytest.raises(Exception, match=r"(?i)checksum"):
                xr.open_zarr(path).load()
        chunk.write_bytes(good)
    xr.open_zarr(path).load()


def test_run_with_a_damaged_file_is_not_continued(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    file = path / "done" / "c" / "1"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match=r"done/c/1 is damaged: checksum"):
        Run.open(path).done  # noqa: B018


def test_run_in_unknown_codecs_is_refused(tmp_path):
    path = tmp_path / "run.zarr"
    filled(path)
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"name": "zstd"', '"name": "zst"'))
    with pytest.raises(RunError, match="no codec 'zst'; did you mean 'zstd'"):
        Run.open(path)


def test_recorded_run_is_checked_too(tmp_path, recorded):
    """Every array that `record` makes, not only those of this file."""
    recorded_at = recorded(CASES["infusenet_cfg"]).path
    for chunk in chunks(recorded_at):
        metadata = next(p / "zarr.json" for p in chunk.parents if (p / "zarr.json").exists())
        codecs = [codec["name"] for codec in json.loads(metadata.read_text())["codecs"]]
        assert codecs[-1] == "crc32c", metadata


def coordinates(path: Path) -> list[str]:
    """What is known before a sample is made: axes, labels and the schedule."""
    run = xr.open_zarr(path)
    return [str(name) for name in run.coords if name not in FOUND_COORDINATES]


def test_a_lost_or_flipped_coordinate_is_answered_in_one_line(tmp_path, recorded):
    """Zarr reads a lost one as NaN, 0 or an empty text: a wrong label would be a wrong sample."""
    path = tmp_path / "run.zarr"
    shutil.copytree(recorded(CASES["infusenet_cfg"]).path, path)
    names = coordinates(path)
    assert {"sigma", "timestep", "sample", "seed", "face", "block", "stream", "step"} <= set(names)
    for name in names:
        (file,) = (path / name / "c").rglob("0")
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(RunError, match=rf"{name}/c/0 is damaged: checksum"):
            Run.open(path)
        file.unlink()
        with pytest.raises(RunError, match=rf"damaged: {name} has lost a file. Remove it and rec"):
            Run.open(path)
        file.write_bytes(good)
    assert Run.open(path).done.all()


def test_a_finished_run_that_lost_its_schedule_is_not_called_finished(tmp_path, typed):
    words = tiny(out=tmp_path / "run.zarr")
    assert typed(words).status == 0
    (tmp_path / "run.zarr" / "sigma" / "c" / "0").unlink()
    answer = typed(words)
    assert answer.status == 2
    assert answer.line == (
        f"{tmp_path / 'run.zarr'} is damaged: sigma has lost a file. Remove it and record it again; "
        "name another out="
    )
