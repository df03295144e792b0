"""Killed or stopped at any instant, a run continues to the same values; what is half made is not done."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.grids import SAMPLES, check_done_samples, values
from tests.killing import words as words_of
from tests.shell import run_command

TRIES = 4
ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("least", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_instant_a_run_ends_with_the_same_values(forks, tmp_path, undisturbed, least):
    """So many SIGKILLs at random instants, several in most runs."""

    def killed(seconds: float, path: Path) -> bool:
        (answer,) = forks(path, seconds)
        assert answer in ("killed", "ended")
        return answer == "killed"

    assert not killed(-1, tmp_path / "first.zarr")
    whole, kills, runs, seen = np.inf, 0, 0, set()
    rng = np.random.default_rng(0)
    while kills < least:
        path, before = tmp_path / f"{runs}.zarr", kills
        begin = time.monotonic()
        while killed(rng.uniform(0, whole) if runs else -1, path):
            kills += 1
            seen.add(check_done_samples(path, undisturbed))
        if kills == before:  # the least: a busy machine may measure too long to kill anything
            whole = min(whole, time.monotonic() - begin)
        assert check_done_samples(path, undisturbed) == SAMPLES
        runs += 1
    assert not list(tmp_path.glob(".*.partial"))
    assert len(seen) > 2, "no kill fell between two samples"


def interrupted(words: list[str], path: Path) -> tuple[int, str]:
    """A run that gets Ctrl-C when its first sample is done; its exit status and standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "probes", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job ignores Ctrl-C, and its children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list((path / "done").glob("c/*")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    return process.returncode, err


def test_ctrl_c_leaves_a_run_that_resumes(tmp_path, ann, undisturbed, typed):
    words = words_of(ann, tmp_path / "run.zarr")
    status, err = interrupted(words, tmp_path / "run.zarr")
    for _ in range(TRIES):
        if status == 0:  # a busy machine let the run end first
            shutil.rmtree(tmp_path / "run.zarr")
            status, err = interrupted(words, tmp_path / "run.zarr")
    assert status == 130, err
    assert err.splitlines() == [
        "stopped; the samples finished so far are kept: the same command continues"
    ]
    assert 0 < check_done_samples(tmp_path / "run.zarr", undisturbed) < SAMPLES
    answer = typed(words)
    assert answer.status == 0
    assert f"{SAMPLES} samples (" in answer.out
    assert check_done_samples(tmp_path / "run.zarr", undisturbed) == SAMPLES


@pytest.fixture(scope="module")
def finished(ann, tmp_path_factory) -> Path:
    """Two samples, made once. Change a copy."""
    path = tmp_path_factory.mktemp("finished") / "run.zarr"
    assert run_command(two(ann, path)) == 0
    return path


def two(face: Path, path: Path) -> list[str]:
    return words_of(face, path) + ["seeds=[0]", "batch_size=1"]


def test_finished_run_is_left_as_it_is(tmp_path, ann, finished, typed):
    shutil.copytree(finished, tmp_path / "run.zarr")
    words = two(ann, tmp_path / "run.zarr")
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "run.zarr").rglob("*")}
    answer = typed(words)
    assert answer.status == 0
    assert answer.out.splitlines() == [
        f"finished: 2 samples in {tmp_path / 'run.zarr'}, nothing to do",
        f"next: stepscope measure {tmp_path / 'run.zarr'}, then stepscope explore {tmp_path / 'run.zarr'}",
    ]
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "run.zarr").rglob("*")} == before


@pytest.mark.parametrize(
    "name", [pytest.param("latents", marks=pytest.mark.slow), "image", "attention_norm"]
)
def test_sample_that_lost_a_file_is_made_again(name, tmp_path, ann, finished, typed):
    """Plain xarray reads a chunk without a file as NaN or 0, whatever `done` says."""
    path = tmp_path / "run.zarr"
    words = two(ann, shutil.copytree(finished, path))
    whole = values(path).load()
    kept = {f: f.stat().st_mtime_ns for f in path.glob("*/c/0/**/*")}
    (lost,) = (f for f in (path / name / "c" / "1").rglob("*") if f.is_file())
    lost.unlink()
    answer = typed(words)
    assert answer.status == 0
    assert "nothing to do" not in answer.out
    xr.testing.assert_identical(values(path).load(), whole)
    assert {f: f.stat().st_mtime_ns for f in path.glob("*/c/0/**/*")} == kept
    assert "nothing to do" in typed(words).out


def test_changed_configuration_is_refused_with_the_difference(tmp_path, ann, typed):
    """Also where the configuration reads the same, and a file that it names does not."""
    (tmp_path / "prompts.txt").write_text("a man\n\na woman\n")
    changed = {"seeds": "[0]", "batch_size": 1, "prompts": tmp_path / "prompts.txt"}
    words = words_of(ann, tmp_path / "run.zarr") + [f"{k}={v}" for k, v in changed.items()]
    assert typed(words).status == 0

    def refused(*more: str) -> str:
        answer = typed(words, *more)
        assert answer.status == 2
        head, _, tail = answer.line.partition(" was made with another configuration: ")
        assert head == str(tmp_path / "run.zarr")
        return tail

    assert refused("guidance=2").startswith("guidance: 3.5 -> 2.0. Choose another out=")
    assert "adapter.scale: 1.0 -> 0.5; steps: 2 -> 3. " in refused("adapter.scale=0.5", "steps=3")
    assert refused("record.velocity=true").startswith("capture.velocity: false -> true.")
    (tmp_path / "prompts.txt").write_text("a man\na person\n")
    assert refused().startswith(
        "its sample 1 (face ann, prompt 'a woman', seed 0) is not in this grid"
    )
    (tmp_path / "prompts.txt").write_text("a man\n")
    assert "finished: 1 sample of the 2 in " in typed(words).out
    (tmp_path / "prompts.txt").write_text("a man\na woman\n")
    good = ann.read_bytes()
    np.save(ann, np.ones(512, np.float32))
    assert refused().startswith("the file of face ann was changed.")
    ann.write_bytes(good)
    assert "nothing to do" in typed(words).out
