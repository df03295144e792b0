"""Faces, prompts and seeds are added to a run: old samples stay as they are, only new ones are made."""

import io
import os
import re
import shutil
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.metrics import METRICS
from stepscope.analysis.runs import MARK
from stepscope.hooks.attributes import unpacked
from stepscope.hooks.store import Run
from stepscope.probes.claims import Claims
from stepscope.probes.grid import Cell
from tests.grids import values
from tests.shell import infused, listed, run_command, tiny


def words(out: Path, seeds: str, **more: str) -> list[str]:
    return tiny(out=out, seeds=seeds, batch_size=2, **more)


def times(path: Path) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns for f in path.glob("latents/c/**/*") if f.is_file()}


def labels(path: Path) -> list[tuple[str, int, int]]:
    run = xr.open_zarr(path)
    columns = (run[name].values.tolist() for name in ("prompt", "seed", "call"))
    return list(zip(*columns, strict=True))


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> tuple[Path, str]:
    """Three seeds in batches of two; then one prompt and one seed more, and what was said of these."""
    path, said = tmp_path_factory.mktemp("grown") / "run.zarr", io.StringIO()
    assert run_command(words(path, "[0,1,2]", prompts=listed("a man"))) == 0
    before = times(path)
    with redirect_stdout(said):
        assert run_command(words(path, "[0,1,2,3]", prompts=listed("a man", "a woman"))) == 0
    assert times(path).items() >= before.items()
    return path, said.getvalue()


@pytest.fixture
def grown(added, tmp_path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(added[0], tmp_path / "run.zarr"))


def test_samples_that_are_added_are_counted_before_they_are_made(added):
    path, said = added
    assert "1 prompt" not in said
    assert "2 prompts x 4 seeds = 8 samples (5 to make)" in said
    assert f"adds 5 samples to the 3 of {path}" in said


def test_new_samples_stand_behind_the_old_ones_in_batches_of_their_own(grown):
    assert labels(grown) == [
        *[("a man", 0, 0), ("a man", 1, 0), ("a man", 2, 2)],
        *[
            ("a man", 3, 3),
            ("a woman", 0, 3),
            ("a woman", 1, 5),
            ("a woman", 2, 5),
            ("a woman", 3, 7),
        ],
    ]
    run = xr.open_zarr(grown)
    assert run.done.values.all()
    assert run.batch_size.values.tolist() == [2, 2, 1, 2, 2, 2, 2, 1]
    assert unpacked(run.attrs)["configuration"]["seeds"] == [0, 1, 2, 3]


def test_a_new_sample_is_the_one_that_a_run_of_its_own_makes(grown, typed, tmp_path):
    other = tmp_path / "other.zarr"
    assert typed(words(other, "[3,0]", prompts=listed("a man"))).status == 0
    mine, alone = values(grown), values(other)
    np.testing.assert_allclose(mine.latents[3, 0], alone.latents[0, 0])  # its noise
    np.testing.assert_allclose(mine.final_latents[3], alone.final_latents[0], atol=1e-4)


def test_a_run_that_is_killed_while_it_grows_continues(grown, typed):
    whole = values(grown).load()
    for sample in (4, 7):
        (grown / "done" / "c" / str(sample)).unlink()
    old = times(grown)
    answer = typed(words(grown, "[0,1,2,3]", prompts=listed("a man", "a woman")))
    assert "8 samples (2 to make)" in answer.out
    xr.testing.assert_identical(values(grown).load(), whole)
    made = {int(f.relative_to(grown).parts[2]) for f, t in times(grown).items() if old[f] != t}
    assert made == {4, 7}


def test_the_first_command_finds_its_samples_finished(grown, typed):
    answer = typed(words(grown, "[0,1,2]", prompts=listed("a man")))
    assert answer.out.startswith(f"finished: 3 samples of the 8 in {grown}, nothing to do\n")


def test_samples_that_a_run_would_lose_are_refused(grown, typed):
    (grown / "done" / "c" / "0").unlink()
    answer = typed(words(grown, "[0,5]", prompts=listed("a man")))
    assert answer.status == 2
    assert (
        "its sample 1 (prompt 'a man', seed 1) is not in this grid: to add samples, name"
        in answer.line
    )
    assert answer.line.endswith("Choose another out=, or remove it")


def test_a_run_that_another_process_adds_to_is_not_one_to_remove(typed, tmp_path):
    path = tmp_path / "run.zarr"
    assert typed(words(path, "[0]")).status == 0
    run = Run.open(path)
    label = {"face": "", "prompt": "a man portrait cinematic", "seed": 1, "call": 1}
    assert run.extend([label], {}, size=1)
    with closing(Claims(run)) as claims:
        assert claims.take([Cell(1, "", "a man portrait cinematic", 1)])
        line = typed(words(path, "[0,2]")).line
    assert "seed 1) is not in this grid" in line
    assert f"It is being made by process {os.getpid()} on host" in line
    assert "wait until that ends" in line
    assert "remove it" not in line
    assert "remove it" in typed(words(path, "[0,2]")).line


def test_without_a_path_a_run_of_fewer_samples_is_added_to(typed, tmp_path):
    first = tiny(seeds="[0]", out=None)
    assert typed(first).status == 0
    (path,) = (tmp_path / "runs").iterdir()
    assert typed(tiny(seeds="[0,1]", out=None)).status == 0
    assert list((tmp_path / "runs").iterdir()) == [path]
    assert xr.open_zarr(path).seed.values.tolist() == [0, 1]
    for again in (first, tiny(seeds="[0,1]", out=None)):
        assert "nothing to do" in typed(again).out
    assert typed(tiny(seeds="[5]", out=None)).status == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_face_is_added(typed, tmp_path, face):
    path, other = tmp_path / "run.zarr", tmp_path / "bob.npy"
    np.save(other, np.random.default_rng(3).normal(size=512).astype(np.float32))
    assert typed(infused(faces=listed(face), out=path)).status == 0
    assert typed(infused(faces=listed(face, other), out=path)).status == 0
    run = xr.open_zarr(path)
    assert run.face.values.tolist() == ["ann", "bob"]
    assert list(unpacked(run.attrs)["faces"]) == ["ann", "bob"]
    np.save(other, np.ones(512, np.float32))
    assert (
        "the file of face bob was changed"
        in typed(infused(faces=listed(face, other), out=path)).line
    )


def test_what_was_measured_stays_and_new_samples_are_not_measured(typed, tmp_path):
    from stepscope.analysis.measure import measure_all

    path = tmp_path / "run.zarr"
    assert typed(words(path, "[0,1]")).status == 0
    measure_all([path], ["latency"])
    assert "latency" in METRICS
    before = xr.open_zarr(path, group="analysis").load()
    assert typed(words(path, "[0,1,2]")).status == 0
    after = xr.open_zarr(path, group="analysis").load()
    marks = after[MARK + "latency"].values
    assert marks[:2].tolist() == before[MARK + "latency"].values.tolist()
    assert marks[2] == 0
    said: list[str] = []
    measure_all([path], ["latency"], say=said.append)
    assert [line for line in said if re.search(r"latency, \d of 3 samples", line)]
    assert xr.open_zarr(path, group="analysis")[MARK + "latency"].values.all()


def test_places_are_added_once_by_processes_that_ask_together(tmp_path, typed):
    path = tmp_path / "run.zarr"
    assert typed(words(path, "[0]")).status == 0
    one, other = Run.open(path), Run.open(path)
    label = {"face": "", "prompt": "a man", "seed": 1, "call": 1}
    assert one.extend([label], {}, size=1)
    assert not other.extend([label], {}, size=1)
    assert other.size == 2
    assert Run.open(path).done.tolist() == [True, False]
