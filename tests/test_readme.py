"""What README.md says can be done: each snippet runs, or is read as the command that it is."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxPipeline

from stepscope.__main__ import COMMANDS
from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics import METRICS
from stepscope.hooks.vocabulary import FOUND_COORDINATES, VARIABLES
from tests.shell import study_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPETS = [(kind, text) for kind, text in FENCED.findall(README)]
PYTHON = [text for kind, text in SNIPPETS if kind == "python"]
PACK = "pocket/models/insightface/models/pocket"
LINES = [
    line
    for kind, text in SNIPPETS
    if kind == "sh"
    for line in text.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """All of it, in order and in one process, on a pocket pipeline in place of the reader's."""
    shutil.copy(ROOT / "pocket" / "portraits" / "00_0.png", tmp_path / "ada.jpg")
    pipe: Any = FluxPipeline.from_pretrained(ROOT / "pocket" / "models" / "flux-schnell")
    pipe.default_sample_size = 32  # 128 x 128 pixels
    pipe.set_progress_bar_config(disable=True)
    encode = pipe.encode_prompt  # at the text length of the pocket models, which know no other
    monkeypatch.setattr(
        pipe, "encode_prompt", lambda **given: encode(**given | {"max_sequence_length": 32})
    )
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/first.zarr").symlink_to(tmp_path / "run.zarr")
    names = {"pipe": pipe}
    for text in PYTHON:
        exec(compile(text, "README.md", "exec"), names)
        if not Path("run.zarr/analysis").exists():
            measure_all(["run.zarr"], ["decode", "arcface"], Settings(recognisers=[PACK]))
    recorded = xr.open_zarr("tokens.zarr")
    assert recorded.face.values.tolist() == ["ada"]
    assert recorded.done.all()
    assert np.isfinite(xr.open_zarr("run.zarr", group="analysis").similarity).any()


@pytest.mark.parametrize("line", LINES)
def test_each_command_of_the_readme_is_one(line):
    program, *rest = words(line)
    assert program == "stepscope"
    assert rest[0] in COMMANDS


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("stepscope probe")])
def test_each_probe_of_the_readme_is_a_study(line):
    study = study_of([word for word in words(line)[2:] if word != "--dry"])
    assert study.faces
    assert len(study.prompts) == 1


def test_every_recorded_and_measured_variable_is_in_the_tables():
    rows = " ".join(re.findall(r"^\| (`.*?) \|", README, re.MULTILINE))
    recorded = {*VARIABLES} - {*FOUND_COORDINATES}
    assert {name for name in recorded if f"`{name}`" not in rows} == set()
    assert {name for name in METRICS if f"`{name}`" not in README} == set()
