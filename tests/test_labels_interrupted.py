"""A label that is added when the disk is full or the process is killed leaves the run as it was."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.hooks.store import Run
from tests.filled import empty, filled, row
from tests.test_append import before_rename, killed_before_rename


def test_full_disk_while_a_label_is_added_leaves_the_run_as_it_was(tmp_path, monkeypatch):
    """Read with consolidated metadata and without."""
    path = tmp_path / "run.zarr"
    run = empty(path)
    run.append([{"tries": 3}], [row(0)])
    before = xr.open_zarr(path).load()

    def full() -> None:
        raise OSError(28, "No space left on device")

    renames = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", before_rename(renames, full))
            try:
                run.append([{"note": "a"}, {"note": "b"}], [row(8), row(9)])
                break
            except OSError:
                renames += 1
        for consolidated in (True, False):
            seen = xr.open_zarr(path, consolidated=consolidated).load()
            xr.testing.assert_identical(seen, before)
    assert renames > len(before.variables)
    after = xr.open_zarr(path)
    assert after.note.values.tolist() == ["", "a", "b"]
    np.testing.assert_array_equal(after.tries.values, [3, np.nan, np.nan])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it")
def test_killed_while_a_label_is_added_the_run_is_the_one_before(tmp_path):
    path = tmp_path / "run.zarr"
    empty(path).append([{"tries": 3}], [row(0)])
    before = xr.open_zarr(path).load()

    def add() -> None:
        Run.open(path).append([{"note": 1}], [row(8)])

    renames = 0
    while killed_before_rename(renames, add):
        xr.testing.assert_identical(xr.open_zarr(path).load(), before)
        renames += 1
    assert renames > len(before.variables)
    assert xr.open_zarr(path).note.values[-1] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it")
def test_a_label_that_a_killed_process_left_unknown_is_forgotten(tmp_path):
    """Without consolidated metadata it would be seen, with another number of samples."""
    path = tmp_path / "run.zarr"
    run = filled(path, samples=1)
    other = filled(tmp_path / "other.zarr", samples=1)
    renamed: list[Path] = []
    replace = os.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda a, b: (renamed.append(b), replace(a, b)))
        other.append([{"note": "a"}], [row(1)])
    assert renamed[-1] == other.path / "zarr.json"
    add = lambda: Run.open(path).append([{"note": "a"}], [row(1)])  # noqa: E731
    assert killed_before_rename(len(renamed) - 1, add)
    assert (path / "note" / "zarr.json").exists()
    run.append([{"face": "bob"}], [row(1)])
    assert not (path / "note").exists()
    assert xr.open_zarr(path, consolidated=False).sizes["sample"] == 2
    run.append([{"note": 1.5}], [row(1)])
    assert xr.open_zarr(path).note.dtype == np.float64
