"""The snippets of docs/edits.md run, in their order, and its tables have every field and operation."""

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from stepscope.hooks import Edit, Operation
from stepscope.hooks.edits import __all__ as names
from tests.cases import CASES, CONTROL
from tests.shell import study_of

PAGE = (Path(__file__).parents[1] / "docs" / "edits.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_snippets_run_in_their_order(tmp_path, monkeypatch, unchecked):
    monkeypatch.chdir(tmp_path)
    arguments = {
        "control_image": CONTROL,
        "num_inference_steps": 3,
        "max_sequence_length": 16,
        "height": 32,
        "width": 48,
        "output_type": "np",
        "generator": torch.Generator().manual_seed(0),
    }
    known: dict[str, object] = {"pipe": CASES["infusenet"].pipe, "arguments": arguments}
    assert len(SNIPPETS) == 4
    for snippet in SNIPPETS:
        exec(compile(snippet, "docs/edits.md", "exec"), known)
    run = xr.open_zarr("edited.zarr")
    added = run.contribution.isel(sample=0, branch=0)
    doubles = [block.startswith("double") for block in run.injection_block.values]
    assert (added[:2, doubles] == 0).all()
    assert (added[2, doubles] > 0).all()
    assert np.isfinite(np.asarray(known["images"])).all()


def test_the_command_is_a_study():
    (command,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    program, which, *words = shlex.split(command.replace("\\\n", " "))
    assert (program, which) == ("stepscope", "probe")
    assert study_of(words).edits[0].sites == ("double.*.adapter",)


def test_the_tables_have_every_field_and_every_operation():
    fields = {field.name for field in dataclasses.fields(Edit)}
    assert fields <= {*re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)}
    told = {*re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)}
    operations = {kind.__name__ for kind in Operation.__subclasses__()} & {*names}
    assert operations == told
