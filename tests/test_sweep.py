"""A sweep is checked whole before its first run, shown as one table, and goes on after a run that fails."""

import pytest
import xarray as xr

from stepscope.hooks.errors import StepscopeError
from stepscope.probes import models
from tests.shell import tiny


def swept(*more: str) -> list[str]:
    return [*tiny(steps=None, seeds="[0]"), "-m", "steps=1,2", *more]


def test_one_table_then_every_run(typed, tmp_path):
    answer = typed(swept())
    assert answer.status == 0, answer.err
    head, *rows = answer.out.splitlines()
    assert head == "2 runs"
    for row, steps in zip(rows[:2], ("1 step", "2 steps"), strict=True):
        assert row.startswith(f"  steps={steps[0]}  ")
        assert "1 sample, 1 to make" in row
        assert steps in row
    made = sorted((tmp_path / "runs").glob("*.zarr"))
    assert [xr.open_zarr(path).sizes["step"] for path in made] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert "1 of 2, steps=1" in answer.out
    assert typed(swept()).out.count(", finished, runs/") == 0
    assert typed(swept()).out.count("finished") >= 2


def test_a_run_that_cannot_be_made_is_told_and_the_others_are_made(typed, tmp_path):
    answer = typed([word.replace("steps=1,2", "steps=0,2") for word in swept()])
    assert answer.status == 2
    assert "  steps=0  cannot be made: steps=0 is not positive" in answer.out.splitlines()
    assert answer.err.splitlines()[-2:] == [
        "1 of 2 runs failed:",
        "  steps=0: steps=0 is not positive",
    ]
    assert len(list((tmp_path / "runs").glob("*.zarr"))) == 1


def test_a_run_that_fails_is_told_at_the_end(typed, tmp_path, monkeypatch):
    real, calls = models.load, []

    def load(*args: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            raise StepscopeError("no such weights")
        return real(*args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(models, "load", load)
    answer = typed(swept())
    assert answer.status == 2
    assert answer.err.splitlines()[-1] == "  steps=1: no such weights"
    assert len(list((tmp_path / "runs").glob("*.zarr"))) == 1


def test_two_runs_of_one_path(typed, tmp_path):
    answer = typed(swept(f"out={tmp_path / 'run.zarr'}", "--dry"))
    assert answer.status == 2
    assert f"{tmp_path / 'run.zarr'} is the run of steps=1: leave out= unnamed" in answer.out


@pytest.mark.parametrize("option", ["backbone=flux_dev,flux_schnel", "setps=1,2"])
def test_a_word_that_no_run_can_have_is_one_line(option, typed, tmp_path):
    answer = typed(swept(option))
    assert answer.status == 2
    assert "did you mean" in answer.line
    assert not list(tmp_path.iterdir())
