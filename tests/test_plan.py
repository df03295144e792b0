"""The plan that is printed before anything runs: true to the byte, and a run that can't fit is refused."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from stepscope.probes import models
from tests.shell import infused, listed, tiny

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
ROW = re.compile(r"^  (\S.*?) +([\d.]+) (B|kB|MB|GB|TB)   (.*)$", re.MULTILINE)
TOTAL = "to write, uncompressed"


def rows(plan: str) -> dict[str, tuple[float, str]]:
    """Bytes and the rest of the line, of every variable and of the total."""
    return {name: (float(n) * UNITS[unit], rest) for name, n, unit, rest in ROW.findall(plan)}


def rounded(count: float) -> float:
    """Half of the last digit that a size is printed with."""
    return 0.051 * 1000 ** ((len(str(int(count))) - 1) // 3)


@pytest.fixture
def free(monkeypatch):
    """`free(bytes)`: so much room is left on every disk; the folders that were asked about."""
    asked: list[Path] = []

    def of(count: int) -> list[Path]:
        def usage(path: Path) -> SimpleNamespace:
            asked.append(Path(path))
            return SimpleNamespace(total=2 * count, used=count, free=count)

        monkeypatch.setattr(shutil, "disk_usage", usage)
        return asked

    return of


@pytest.fixture
def nothing_loaded(monkeypatch) -> None:
    def load(*args: object) -> None:
        pytest.fail("models are loaded after the plan")

    monkeypatch.setattr(models, "load", load)


CASES = {
    "backbone alone": {"adapter": None, "adapter__path": None},
    "norms": {},
    "velocity": {"record__velocity": "true", "true_cfg": 2.0, "negative_prompt": "sketch"},
    "tokens": {"record": "tokens"},
    "full": {"record": "full", "record__sites": "['double.01.*','single.*.attention.image']"},
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_those_of_the_arrays_that_are_made(name, typed, tmp_path, face):
    out = tmp_path / "run.zarr"
    words = infused(faces=listed(face), seeds="[0,1]", height=48, out=out, **CASES[name])
    answer = typed(words)
    assert answer.status == 0, answer.err
    stated = rows(answer.out)
    total, _ = stated.pop(TOTAL)
    run = xr.open_zarr(out)
    made = {str(n): a for n, a in run.data_vars.items() if "sample" in a.dims}
    assert set(stated) == set(made)
    for variable, (count, dims) in stated.items():
        array = made[variable]
        assert count == pytest.approx(array.nbytes, abs=rounded(count)), variable
        sizes = [f"{d} {array.sizes[d]}" for d in array.dims if d != "sample"]
        assert dims == " x ".join(sizes)
    assert total == pytest.approx(sum(a.nbytes for a in made.values()), abs=rounded(total))


def test_plan_says_how_many_samples_steps_and_bytes_where_and_how_much_is_free(
    typed, tmp_path, face, free, nothing_loaded
):
    free(123_400_000_000)
    out = tmp_path / "runs" / "first.zarr"
    words = infused(faces=listed(face), seeds="[0,1,2]", batch_size=2, steps=5, out=out)
    answer = typed([*words, "prompts=['a man','a woman']", "dry=true"])
    assert answer.status == 0, answer.err
    head, *grid, into = answer.out.partition("models")[2].splitlines()[3:8]
    assert head == (
        "flux_dev, infusenet: 1 face x 2 prompts x 3 seeds = 6 samples (6 to make), 5 steps, 64 x 64, "
        "batches of 2"
    )
    assert grid == ["  faces    ann", '  prompts  "a man" | "a woman"', "  seeds    0, 1, 2"]
    assert into == f"into {out}"
    assert rows(answer.out)["latents"] == (
        pytest.approx(122_900),
        "step 5 x channel 4 x y 16 x x 16",
    )
    assert rows(answer.out)[TOTAL][1] == "free: 123.4 GB"


@pytest.mark.parametrize("word", ["--dry", "dry=true"])
def test_dry_stops_after_the_plan(word, typed, tmp_path, face, nothing_loaded):
    before = sorted(tmp_path.rglob("*"))
    for out in ([f"out={tmp_path / 'runs' / 'run.zarr'}"], []):
        answer = typed(infused(faces=listed(face)), word, *out)
        assert (answer.status, answer.err) == (0, "")
        assert "= 1 sample (1 to make)" in answer.out
        assert sorted(tmp_path.rglob("*")) == before


def test_run_that_does_not_fit_is_refused_before_anything_is_loaded(
    typed, tmp_path, free, nothing_loaded
):
    words = tiny(seeds="[0,1]", out=tmp_path / "runs" / "run.zarr")
    total = rows(typed(words, "--dry").out)[TOTAL][0]
    asked = free(int(total / 2))
    for more in ([], ["--dry"]):
        answer = typed(words, *more)
        assert answer.status == 2
        assert re.fullmatch(
            r"this run may need [\d.]+ kB and .*run\.zarr has [\d.]+ kB free: fewer samples or steps, "
            r"or another out=",
            answer.line,
        )
    assert set(asked) == {tmp_path}  # the nearest folder that exists
    assert not (tmp_path / "runs").exists()


def test_only_what_is_left_has_to_fit(typed, tmp_path, free):
    """A run of two samples of which one is done needs half of the room."""
    out = tmp_path / "run.zarr"
    words = tiny(seeds="[0,1]", out=out)
    plan = typed(words)
    assert plan.status == 0
    (out / "done" / "c" / "1").unlink()  # as a run that was killed before it
    free(int(rows(plan.out)[TOTAL][0] * 0.6))
    answer = typed(words)
    assert answer.status == 0, answer.err
    assert "2 samples (1 to make)" in answer.out
    assert np.asarray(xr.open_zarr(out).done).all()
