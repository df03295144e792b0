"""Several processes make one grid: each sample once, by one of them, and as by one alone."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepscope.hooks.lock import Lock
from stepscope.hooks.store import Run
from stepscope.probes.provenance import configuration, default_out
from stepscope.probes.run import run
from tests.grids import SAMPLES, check_done_samples
from tests.killing import words as words_of
from tests.shell import study_of, tiny

ROOT = Path(__file__).parents[1]

TRIES = 4
Make = Callable[..., list[str]]


def said(path: Path, number: int) -> str:
    """What one of the processes said last of the run."""
    return last_word(Path(f"{path}.{number}.txt").read_text().splitlines())


def last_word(lines: list[str]) -> str:
    """The last line besides the one that says what to do next."""
    return [line for line in lines if not line.startswith("next: ")][-1]


def stamps(path: Path) -> dict[Path, int]:
    return {f: f.stat().st_mtime_ns for f in path.glob("*/c/**/*") if f.is_file()}


def test_two_processes_share_one_grid(forks, tmp_path, undisturbed):
    shares = set[int]()
    for number in range(TRIES):  # a busy machine may let one of them make all
        path = tmp_path / f"{number}.zarr"
        assert forks(path, -1, -1) == ["ended", "ended"]
        assert check_done_samples(path, undisturbed) == SAMPLES
        lines = [said(path, i) for i in range(2)]
        assert any(f"all {SAMPLES} samples are done" in line for line in lines), lines
        mine = [re.search(r"(\d+) of them by this process", line) for line in lines]
        shares = {int(each[1]) for each in mine if each}
        assert not list((path / "done").glob(".claim*"))
        assert not list(tmp_path.glob(".*"))
        if all(mine):
            assert sum(int(each[1]) for each in mine if each) == SAMPLES
            break
    assert shares - {0, SAMPLES}, "no grid was shared"


@pytest.mark.slow
def test_what_a_killed_process_had_claimed_is_made_by_the_other(
    forks,
    tmp_path,
    undisturbed,
):
    """One of two is killed at some instant; the other ends, and what it left the next one makes."""
    assert forks(tmp_path / "first.zarr", -1) == ["ended"]
    rng, kills = np.random.default_rng(0), 0
    for number in range(12):
        path = tmp_path / f"{number}.zarr"
        answers = forks(path, rng.uniform(0, 1), -1)
        assert answers[1] == "ended"
        kills += answers[0] == "killed"
        done = check_done_samples(path, undisturbed)
        line = said(path, 1)
        # the first one may make more between the other's last word and its own end
        counted = re.search(rf"(\d+) (of {SAMPLES} )?samples are done", line)
        assert counted is not None, line
        assert int(counted[1]) <= done
        if done < SAMPLES:
            assert forks(path, -1) == ["ended"]
        assert check_done_samples(path, undisturbed) == SAMPLES
    assert kills


def test_a_batch_that_another_makes_is_left_to_it(tmp_path, ann, undisturbed, typed):
    """It says who makes how many, and ends; who asks again when the claim is free makes them."""
    path = tmp_path / "run.zarr"
    words = words_of(ann, path)
    assert typed(words, "seeds=[0]", "--dry").status == 0  # nothing is claimed or made
    assert not path.exists()
    place = begun(path, typed, words)
    claim = place.lock("claim-2")
    assert claim.take()
    answer = typed(words)
    assert answer.status == 0
    last = answer.out.splitlines()[-1]
    assert last.startswith(
        f"{path}: 6 of {SAMPLES} samples are done, 6 of them by this process, and nothing "
        "is left to begin: the other 2 are still made by "
        f"process {os.getpid()} on host {os.uname().nodename} (since "
    )
    assert np.flatnonzero(~place.done).tolist() == [2, 3]
    before = stamps(path)
    again = typed(words).out.splitlines()[-1]
    assert again == last.replace("6 of them by", "0 of them by")
    claim.drop()
    assert last_word(typed(words).out.splitlines()) == f"{path}: all {SAMPLES} samples are done"
    assert {f: t for f, t in stamps(path).items() if f in before} == before
    assert check_done_samples(path, undisturbed) == SAMPLES
    assert not list((path / "done").glob(".claim*"))


def begun(path: Path, typed, words: list[str]) -> Run:
    """The words' run with places and no sample: stopped before its first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stepscope.probes.run.denoise", lambda *args: "stopped")
        assert typed(words).status == 0
    return Run.open(path)


def test_a_sample_that_another_has_made_meanwhile_is_not_made_again(
    tmp_path,
    ann,
    typed,
    monkeypatch,
):
    """By the time that its claim is free, it is done."""
    path = tmp_path / "run.zarr"
    words = words_of(ann, path)
    place, real, said = begun(path, typed, words), Lock.take, list[str]()
    whole: list[dict[Path, int]] = []

    def late(lock: Lock, seconds: float = 0.0) -> bool:
        if lock.path.name.startswith(".claim") and not whole:
            whole.append({})
            assert (
                typed(words).status == 0
            )  # all that the other makes, between looking and claiming
            whole.append(stamps(path))
        return real(lock, seconds)

    monkeypatch.setattr(Lock, "take", late)
    run(study_of(words), say=said.append)
    assert last_word(said) == f"{path}: all {SAMPLES} samples are done, 0 of them by this process"
    assert place.done.all()
    assert stamps(path) == whole[1]


def test_who_finds_that_another_made_the_run_shares_it(tmp_path, ann, undisturbed, monkeypatch):
    """Both had found none, and loaded their models."""
    path, real, said = tmp_path / "run.zarr", Run.create, list[str]()
    study = study_of(words_of(ann, path))

    def late(*given, **named) -> Run:
        monkeypatch.setattr(Run, "create", real)
        run(study, say=print)
        return real(*given, **named)

    monkeypatch.setattr(Run, "create", late)
    run(study, say=said.append)
    assert last_word(said) == f"{path}: all {SAMPLES} samples are done"
    assert check_done_samples(path, undisturbed) == SAMPLES


def test_calls_and_arguments_are_known_before_a_sample_is_made(undisturbed):
    assert undisturbed.call.values.tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert undisturbed.batch_size.values.tolist() == [2] * SAMPLES
    assert undisturbed.generator.values.tolist() == [f"seed {i % 4}" for i in range(SAMPLES)]
    assert set(undisturbed.steps_run.values.tolist()) == {2}
    assert '"num_inference_steps": 2' in undisturbed.arguments.values[0]
    assert set(undisturbed.negative_prompt.values.tolist()) == {""}


def test_processes_on_other_cards_share_one_run(tmp_path):
    study = study_of(tiny(out=tmp_path / "run.zarr"))
    first, second = (replace(study, device=f"cuda:{i}", out=None) for i in range(2))
    assert configuration(first) == configuration(second)
    assert default_out(first) == default_out(second) != default_out(replace(study, out=None))
