"""A call's samples appear in a run all at once, whatever stops its process."""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.hooks import record
from stepscope.hooks.store import Run
from tests.cases import CASES
from tests.filled import filled, row
from tests.test_record import TIMINGS


def test_samples_are_added_at_the_end(tmp_path):
    path = tmp_path / "run.zarr"
    run = filled(path, samples=2)
    run.append([{"face": "bob", "seed": 7}, {"prompt": "at the beach"}], [row(2), row(3)])
    Run.open(path).append([], [])
    seen = xr.open_zarr(path).load()
    assert seen.sample.values.tolist() == [0, 1, 2, 3]
    assert seen.face.values.tolist() == ["ann", "ann", "bob", ""]
    assert seen.prompt.values.tolist() == ["", "", "", "at the beach"]
    assert seen.seed.values.tolist() == [-1, -1, 7, -1]
    assert seen.done.values.all()
    np.testing.assert_array_equal(seen.length, [row(i)["length"] for i in range(4)])


def test_reader_sees_only_whole_samples(tmp_path):
    """A reader that opens the run at any moment of `append` gets a run that is whole."""
    path, sizes, stop = tmp_path / "run.zarr", set(), threading.Event()
    run = filled(path, samples=1)
    failures: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen = xr.open_zarr(path).load()
                assert seen.done.all()
                sizes.add(seen.sizes["sample"])
            except (Exception, AssertionError) as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(1, 11):
        run.append([{"face": "bob"}], [row(i)])
    stop.set()
    reader.join()
    assert not failures
    assert sizes <= set(range(1, 12))


def before_rename(index: int, act: Callable[[], None]) -> Callable[..., None]:
    """`os.replace`, with something done before it is called for that time."""
    replace, count = os.replace, itertools.count()

    def replaced(beside: Path, file: Path) -> None:
        if next(count) == index:
            act()
        replace(beside, file)

    return replaced


def test_full_disk_leaves_the_run_as_it_was_and_the_next_samples_fit(tmp_path, monkeypatch):
    path = tmp_path / "run.zarr"
    run = filled(path, samples=1)
    before = xr.open_zarr(path).load()

    def full() -> None:
        raise OSError(28, "No space left on device")

    renames = 0
    while True:
        with monkeypatch.context() as patch, contextlib.suppress(OSError):
            patch.setattr(os, "replace", before_rename(renames, full))
            run.append([{"face": "bob"}, {"face": "eve"}], [row(8), row(9)])
            break
        xr.testing.assert_identical(xr.open_zarr(path).load(), before)
        renames += 1
    assert renames > len(before.variables)
    run.append([{"face": "eve"}], [row(3)])
    assert xr.open_zarr(path).face.values.tolist() == ["ann", "bob", "eve", "eve"]
    assert Run.open(path).done.tolist() == [True] * 4


def killed_before_rename(index: int, work: Callable[[], None]) -> bool:
    """Work in a fork that is killed there; False if it ended first."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.replace = before_rename(index, lambda: os.kill(os.getpid(), signal.SIGKILL))
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it")
def test_recording_killed_while_it_grows_ends_as_one_never_killed(tmp_path, monkeypatch):
    case, path = CASES["flux"], tmp_path / "run.zarr"

    def call(seed: int, path: Path = path) -> None:
        with record(case.pipe, path):
            case(seeds=(seed,), steps=1)

    def seen(path: Path) -> xr.Dataset:
        return xr.open_zarr(path, chunks=None).drop_vars(TIMINGS).load()

    other, replace, renamed = tmp_path / "undisturbed.zarr", os.replace, list[str]()
    call(0, other)
    with monkeypatch.context() as patch:
        keep = renamed.append
        patch.setattr(os, "replace", lambda a, b: (keep(str(b.relative_to(other))), replace(a, b)))
        call(1, other)
    call(2, other)
    undisturbed = seen(other)
    grown = [i for i, name in enumerate(renamed) if name.endswith("zarr.json")]
    assert renamed[grown[-1]] == "zarr.json" == renamed[-1]  # what readers go by is last

    call(0)
    for index in (0, renamed.index("seed/c/0"), renamed.index("done/c/1"), grown[0], grown[-1]):
        assert killed_before_rename(index, lambda: call(1))
        xr.testing.assert_equal(seen(path), undisturbed.isel(sample=[0]))
    for seed in (1, 2):
        call(seed)
    xr.testing.assert_equal(seen(path), undisturbed)
