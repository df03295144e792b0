"""Several processes, one run: made once, grown by all of them, and nothing lost or torn."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest
import xarray as xr

from stepscope.hooks import lock, record
from stepscope.hooks.errors import RunError, RunExistsError
from stepscope.hooks.lock import Lock
from stepscope.hooks.store import Run
from tests.cases import CASES
from tests.filled import LENGTH, STEPS, filled, plan, row
from tests.test_record import TIMINGS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks its processes")


def forked(work: Callable[[], None]) -> int:
    """Start work in a process of its own; its number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def ended(*pids: int) -> list[int]:
    """Wait for processes; their exit statuses."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


@contextlib.contextmanager
def other_process(path: Path):
    """A process, without anything of ours, that holds a lock's file as long as the `with`."""
    code = "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
    code += "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("made", [True, False], ids=["grown", "made"])
def test_two_who_record_into_one_path_both_find_all_their_samples(tmp_path, made):
    """One of them makes the run, where there is none."""
    case, path, calls = CASES["flux"], tmp_path / "run.zarr", 4
    if made:
        with record(case.pipe, path) as recording:
            recording.label([{"face": "0"}])
            case(seeds=(0,), steps=1)

    def work(first: int) -> None:
        with record(case.pipe, path) as recording:
            for i in range(calls):
                recording.label([{"face": str(first), "prompt": str(i)}])
                case(seeds=(first + i,), steps=1)

    assert ended(*(forked(lambda n=n: work(n)) for n in (100, 200))) == [0, 0]
    seen = xr.open_zarr(path, chunks=None).load()
    assert Run.open(path).done.tolist() == [True] * (2 * calls + made)
    for first in ("100", "200"):
        mine = seen.isel(sample=np.flatnonzero(seen.face == first))
        assert mine.prompt.values.tolist() == [str(i) for i in range(calls)]
    assert (
        seen.call.values.tolist() == seen["sample"].values.tolist() == list(range(2 * calls + made))
    )
    alone = tmp_path / "alone.zarr"
    with record(case.pipe, alone):
        case(seeds=(100,), steps=1)
    expected = xr.open_zarr(alone, chunks=None).drop_vars(TIMINGS).load()
    (place,) = np.flatnonzero((seen.face == "100") & (seen.prompt == "0"))
    for name in expected.data_vars:
        values = seen[name].isel(sample=[place]) if "sample" in seen[name].dims else seen[name]
        np.testing.assert_array_equal(values, expected[name], str(name))


def test_many_who_grow_one_run_lose_nothing_while_it_is_read(tmp_path):
    path, each, makers = tmp_path / "run.zarr", 12, 4
    filled(path, samples=1)

    def work(maker: int) -> None:
        run = Run.open(path)
        for i in range(each):
            label = {"face": f"{maker}.{i}", **({"note": maker} if i % 3 == 2 else {})}
            run.append([label, label], [row(maker), row(maker)])

    running = [forked(lambda m=m: work(m)) for m in range(makers)]
    while running:
        seen = xr.open_zarr(path).load()  # at any moment it is whole
        assert seen.done.all()
        assert len(set(seen.face.values)) == (seen.sizes["sample"] + 1) // 2
        for pid in list(running):
            ended_now, status = os.waitpid(pid, os.WNOHANG)
            if ended_now:
                assert status == 0
                running.remove(pid)
    seen = xr.open_zarr(path).load()
    names = {f"{maker}.{i}" for maker in range(makers) for i in range(each)}
    assert sorted(seen.face.values) == sorted([*names, *names, "ann"])
    for face, call, values in zip(
        seen.face.values, seen.call.values, seen.length.values, strict=True
    ):
        if face != "ann":
            assert seen.face.values[call] == face
            np.testing.assert_array_equal(values, row(int(face[0]))["length"])
    assert Run.open(path).done.all()
    assert not list((path / "done").glob("*.partial"))


@pytest.mark.parametrize("at", [False, True])
def test_of_two_who_make_one_run_one_does_and_the_other_is_told(tmp_path, monkeypatch, at):
    """Both find nothing there, and both build it: a rename is what one of them wins."""
    path, real = tmp_path / "run.zarr", os.rename

    def slow(partial: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", real)
        filled(path)  # the other, meanwhile
        real(partial, target)

    monkeypatch.setattr(os, "rename", slow)
    if at:
        run = Run.at(path, plan(**LENGTH), {})
    else:
        with pytest.raises(RunExistsError, match=r"run\.zarr already exists"):
            Run.create(path, plan(**LENGTH), [], {})
        run = Run.open(path)
    assert run.done.tolist() == [True, True]
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


def test_a_killed_process_holds_no_lock(tmp_path):
    run = filled(tmp_path / "run.zarr", samples=1)
    ready, write = os.pipe()

    def hold() -> None:
        held = Lock(run.path / "done" / ".lock")
        os.write(write, b"1" if held.take() else b"0")
        time.sleep(600)

    pid = forked(hold)
    assert os.read(ready, 1) == b"1"
    assert not Lock(run.path / "done" / ".lock").take()
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == [-signal.SIGKILL]
    run.append([{"face": "bob"}], [row(1)])
    assert xr.open_zarr(run.path).face.values.tolist() == ["ann", "bob"]


def test_a_lock_that_is_held_too_long_names_who_holds_it(tmp_path, monkeypatch):
    run = filled(tmp_path / "run.zarr", samples=1)
    monkeypatch.setattr(lock, "WAIT", 0.1)
    file = run.path / "done" / ".lock"
    held = Lock(file)
    assert held.take()
    try:
        with pytest.raises(RunError) as caught:
            run.append([{}], [row(1)])
    finally:
        held.drop()
    said = str(caught.value)
    assert (
        f"{run.path} is held by process {os.getpid()} on host {os.uname().nodename} (since 2"
        in said
    )
    assert said.endswith(f"if there is no such process, remove {file}")
    assert "\n" not in said
    with other_process(file), pytest.raises(RunError, match="is held by"):
        run.annotate(note="a")
    run.append([{}], [row(1)])
    assert Run.open(run.path).done.tolist() == [True, True]


def test_where_a_filesystem_has_no_locks_a_file_is_one(tmp_path, monkeypatch):
    """Lustre mounted without flock, and some FUSE."""
    import fcntl

    def missing(*args: int) -> None:
        raise OSError(38, "Function not implemented")

    run = filled(tmp_path / "run.zarr", samples=1)
    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.warns(UserWarning, match="flock not supported"):
        run.append([{"face": "bob"}], [row(1)])
    monkeypatch.setattr(lock, "WAIT", 0.1)
    assert not (run.path / "done" / ".lock").exists()
    held = filelock.SoftFileLock(run.path / "done" / ".lock")
    with (
        held,
        pytest.warns(UserWarning, match="flock not supported"),
        pytest.raises(RunError, match=f"process {os.getpid()} on"),
    ):
        run.append([{}], [row(1)])
    assert xr.open_zarr(run.path).face.values.tolist() == ["ann", "bob"]


def test_a_run_that_was_removed_meanwhile_is_not_half_made_again(tmp_path):
    run = filled(tmp_path / "run.zarr", samples=1)
    run.path.rename(tmp_path / "moved.zarr")
    with pytest.raises(RunError, match=r"run\.zarr is gone: it was moved or removed"):
        run.append([{}], [row(1)])
    assert [p.name for p in tmp_path.iterdir()] == ["moved.zarr"]


def test_another_schedule_is_refused_also_where_another_process_wrote_it(tmp_path):
    both = Run.create(tmp_path / "run.zarr", plan(**LENGTH), [], {}), Run(tmp_path / "run.zarr")
    both[0].write_steps(STEPS)
    both[1].write_steps(STEPS)
    with pytest.raises(RunError, match="another schedule: sigma differs"):
        both[1].write_steps({"sigma": np.ones(3, np.float32)})


def test_attributes_of_two_processes_are_both_kept(tmp_path):
    run = filled(tmp_path / "run.zarr")
    other = Run.open(run.path)
    run.annotate(one=1)
    other.annotate(two=2)
    run.append([{}], [row(2)])
    about = xr.open_zarr(run.path).attrs
    assert (about["one"], about["two"]) == (1, 2)
