"""The writer's thread keeps order, hands its errors over, and holds no more than its short queue."""

import itertools
import threading
from typing import Any

import pytest
import xarray as xr

from stepscope.hooks import record
from stepscope.hooks.store import Run
from stepscope.hooks.writer import Writer, writing
from tests.cases import CASES, Case


class DiskError(Exception):
    """What a disk says in these tests."""


def fail() -> None:
    raise DiskError


def test_jobs_run_in_order_and_are_all_done_on_leaving():
    seen: list[int] = []
    with writing() as writer:
        for i in range(50):
            writer.put(lambda i=i: seen.append(i))
    assert seen == list(range(50))


def test_error_is_raised_on_leaving():
    with pytest.raises(DiskError), writing() as writer:
        writer.put(fail)


def test_error_is_raised_at_a_later_put_and_drops_what_was_queued():
    seen: list[int] = []
    failed = threading.Event()

    def fail_late() -> None:
        failed.set()
        raise DiskError

    def put_all() -> None:
        with writing() as writer:
            writer.put(fail_late)
            failed.wait()
            for i in range(100):
                writer.put(lambda i=i: seen.append(i))

    with pytest.raises(DiskError):
        put_all()
    assert seen == []


def divide(writer: Writer) -> float:
    writer.put(fail)
    return 1 / 0


def test_error_in_the_with_is_the_one_that_is_raised():
    with pytest.raises(ZeroDivisionError), writing() as writer:
        divide(writer)


def test_queue_is_bounded():
    """With the disk stuck, only `waiting` jobs and the one under way are held."""
    stuck, put = threading.Event(), []

    def wait() -> None:
        stuck.wait()

    def produce() -> None:
        with writing(waiting=2) as writer:
            for i in range(20):
                writer.put(wait)
                put.append(i)

    producer = threading.Thread(target=produce)
    producer.start()
    producer.join(0.3)
    assert len(put) <= 3
    stuck.set()
    producer.join()
    assert len(put) == 20


def repeat(case: Case, times: int) -> None:
    for seed in range(times):
        case(seeds=(seed,), steps=1)


def test_disk_error_reaches_the_caller_of_record_and_keeps_what_was_finished(tmp_path, monkeypatch):
    case, path = CASES["flux"], tmp_path / "run.zarr"
    append, calls = Run.append, itertools.count()

    def full(run: Run, *batch: Any) -> None:
        if next(calls) == 1:
            raise OSError(28, "No space left on device")
        append(run, *batch)

    monkeypatch.setattr(Run, "append", full)
    with pytest.raises(OSError, match="No space"), record(case.pipe, path):
        repeat(case, 8)
    assert next(calls) == 2
    assert xr.open_zarr(path).done.values.tolist() == [True]
