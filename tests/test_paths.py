"""`~` is the home folder wherever a path is typed, and a bucket is refused in one line, on entry."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.__main__ import main as analysis
from stepscope.analysis.paper import main as paper
from stepscope.hooks.errors import UnsupportedPathError
from stepscope.hooks.paths import local_path, run_path
from stepscope.hooks.store import Run
from stepscope.probes.typed import at_home
from tests.filled import LENGTH, filled, plan
from tests.shell import infused, listed, run_command, tiny

ELSEWHERE = ("s3://bucket/run.zarr", "gs://b/r", "http://host/r", "memory://r", "file:///tmp/r",
             "simplecache::s3://b/r", "s3:/bucket/run.zarr")  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize("text", ELSEWHERE)
def test_an_address_of_another_store_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for door in (run_path, Run.open, lambda path: Run.create(path, plan(**LENGTH), [], {})):
        for given in (text, Path(text)):
            with pytest.raises(
                UnsupportedPathError, match="is not supported yet, name a"
            ) as caught:
                door(given)
            assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["run.zarr", "a:b.zarr", "C:/runs/a.zarr", "/tmp/x:y/z"])
def test_other_paths_are_left_as_they_are(text):
    assert run_path(text) == Path(text)


def test_home_is_known_by_its_sign(home):
    assert run_path("~/runs/a.zarr") == home / "runs" / "a.zarr"
    with pytest.raises(UnsupportedPathError, match="prompts '~nobody-of-that-name/a'"):
        local_path("~nobody-of-that-name/a", "prompts")
    run = filled(Path("~/deep/run.zarr"))
    assert run.path == home / "deep" / "run.zarr"
    assert Run.open("~/deep/run.zarr").done.all()


def test_files_of_a_command_are_found_at_home(home, typed, tmp_path):
    (home / "prompts.txt").write_text("a man\n")
    np.save(home / "noise.npy", np.zeros((4, 16, 16), np.float32))
    words = tiny(prompts="['~/prompts.txt']", out="'~/run.zarr'", initial_latents="'~/noise.npy'")
    answer = typed(words)
    assert answer.status == 0, answer.err
    seen = xr.open_zarr(home / "run.zarr")
    assert seen.prompt.values.tolist() == ["a man"]
    assert seen.generator.values.tolist() == ["initial_latents"]
    assert not seen.latents[0, 0].any()
    assert "nothing to do" in typed(words).out
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("~")]


def test_analysis_finds_runs_at_home(home, capsys):
    filled(home / "a.zarr")
    for words in ("'~/a.zarr'", "~/a.zarr", "'~/*.zarr'"):
        assert run_command([f"runs=[{words}]", "metrics=[latency]"], analysis) == 2
        assert capsys.readouterr().err.startswith(f"{home}/a.zarr has no stage_seconds")


@pytest.mark.parametrize(
    ("word", "read"),
    {
        "out=~/a.zarr": "out='~/a.zarr'",
        "runs=[~/a.zarr,b.zarr,~/c d.zarr]": "runs=['~/a.zarr',b.zarr,'~/c d.zarr']",
        "out='~/a.zarr'": "out='~/a.zarr'",
        "prompts=['a, ~ b']": "prompts=['a, ~ b']",
        "~adapter": "~adapter",
        "out=a~b.zarr": "out=a~b.zarr",
    }.items(),
)
def test_a_home_path_needs_no_quotes(word, read):
    assert at_home(word) == read


@pytest.mark.parametrize("key", ["out", "faces", "prompts", "control_image", "initial_latents",
                                 "backbone.path", "adapter.path", "adapter.encoder",
                                 "adapter.detector"])  # fmt: skip
def test_a_command_refuses_buckets_on_entry(key, typed, face, tmp_path):
    named = listed("s3://bucket/a.txt") if key in ("faces", "prompts") else "'s3://bucket/a.txt'"
    before = set(tmp_path.rglob("*"))
    words = [w for w in infused(faces=listed(face), out="run.zarr") if not w.startswith(f"{key}=")]
    answer = typed([*words, f"{key}={named}"])
    assert answer.status == 2
    assert answer.line == (
        f"{key} 's3://bucket/a.txt': s3 is not supported yet, name a path of this machine"
    )
    assert set(tmp_path.rglob("*")) == before


def test_analysis_and_paper_check_buckets_too(capsys):
    assert run_command(["runs=['gs://bucket/a.zarr']"], analysis) == 2
    assert capsys.readouterr().err.startswith("runs 'gs://bucket/a.zarr': gs is not supported yet")
    assert run_command(["out='s3://bucket/a'", "--dry"], paper) == 2
    assert capsys.readouterr().err.startswith("out 's3://bucket/a': s3 is not supported yet")


def test_a_prompt_may_speak_of_addresses(typed):
    answer = typed(tiny(prompts=listed("~ a poster that says s3://bucket")), "--dry")
    assert answer.status == 0
    assert os.sep not in answer.out.splitlines()[0]
