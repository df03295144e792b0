"""Every pipeline class of diffusers' FLUX, SD and SDXL families is recorded right, or refused on entry."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from stepscope.hooks import record
from tests.every_pipeline import build, modules
from tests.every_pipeline_calls import WITHOUT_CALL, Call, has_call
from tests.every_pipeline_made import arguments_of, pipeline_of, variants
from tests.every_pipeline_outcome import CAPTURE, entry, outcome
from tests.every_pipeline_table import outcome_of, representative, row
from tests.oracle import Truth, truth
from tests.oracle_check import check

TABLE = Path(__file__).parents[1] / "docs" / "pipelines.md"
PLAIN = ["FluxPipeline", "StableDiffusionPipeline"]
"""Of these, every variant is tried in each run of the tests; of the others in the slow one."""

NAMES = sorted(modules())
CALLED = [name for name in NAMES if has_call(name)]
OTHERS = [call for name in CALLED for call in variants(name) if call != representative(name)]


@pytest.mark.parametrize("name", NAMES)
def test_right_or_refused_and_the_table_says_which(name, tmp_path):
    found = outcome_of(name, tmp_path)
    assert found.wrong == []
    assert row(name, found) in TABLE.read_text().splitlines()


@pytest.mark.parametrize(
    "call",
    [c if c.name in PLAIN else pytest.param(c, marks=pytest.mark.slow) for c in OTHERS],
    ids=str,
)
def test_every_variant_is_right_or_refused(call, tmp_path):
    assert outcome(call, tmp_path).wrong == []


def test_table_has_every_class_once():
    lines = TABLE.read_text().splitlines()
    named = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert named == ["class", "---", *NAMES]


def test_classes_are_those_that_import():
    """Read from the source: each is what its module has, and its denoiser is annotated as told."""
    for name in NAMES[::12]:
        assert type(build(name)).__name__ == name
    assert {"FluxPipeline", "StableDiffusionXLPAGPipeline", "VisualClozePipeline"} <= set(NAMES)


@pytest.mark.parametrize(("pattern", "cause"), WITHOUT_CALL.items())
def test_classes_without_a_call_are_refused_for_their_cause(pattern, cause, tmp_path):
    named = [name for name in NAMES if re.search(pattern, name)]
    assert named, "no class is of this pattern"
    for name in named:
        assert re.search(cause, entry(build(name), tmp_path).refused), name


@pytest.fixture(scope="module")
def right(tmp_path_factory) -> tuple[Call, xr.Dataset, Truth]:
    """A run that the oracle finds right, with two branches, several streams and an IP-Adapter."""
    call = Call("FluxPipeline", frozenset({"guided", "image_prompt"}))
    path, pipe = tmp_path_factory.mktemp("right") / "run.zarr", pipeline_of(call)
    arguments = arguments_of(call)
    with record(pipe, path, CAPTURE):
        pipe(**arguments)
    run, known = xr.open_zarr(path).load(), truth(call, pipeline_of(call))
    assert check(call, run, known) == []
    return call, run, known


def found(right, **changed: xr.DataArray) -> str:
    call, run, known = right
    return "\n".join(check(call, run.assign(changed), known))


@pytest.mark.parametrize("name", ["attention_norm", "residual_norm", "massive_share", "velocity"])
def test_oracle_sees_swapped_branches(right, name):
    swapped = right[1][name].isel(branch=[1, 0]).values
    assert f"{name} is off" in found(right, **{name: right[1][name].copy(data=swapped)})


@pytest.mark.parametrize("name", ["attention_norm", "residual_norm"])
def test_oracle_sees_swapped_streams(right, name):
    stored = right[1][name]
    swapped = stored.copy(data=stored.isel(stream=[1, 0, *range(2, stored.sizes["stream"])]).values)
    assert f"{name} is" in found(right, **{name: swapped})


@pytest.mark.parametrize(
    "name", [*["latents", "x0", "final_latents", "velocity", "attention_norm"]]
)
def test_oracle_sees_a_step_or_a_number_that_is_off(right, name):
    stored = right[1][name]
    one = stored.values.copy()
    place = tuple(np.argwhere(np.isfinite(one))[0])
    one[place] += 1e-3 * np.nanmax(np.abs(one))
    assert f"{name} is off" in found(right, **{name: stored.copy(data=one)})
    gone = stored.where(stored["sample"] != 0)
    assert f"{name} is NaN, and computed" in found(right, **{name: gone})
    there = stored.fillna(0.0)
    if stored.isnull().any():
        assert f"{name} is stored, and not computed" in found(right, **{name: there})


def test_oracle_sees_samples_that_are_mixed_up(right):
    call, run, known = right
    mixed = "\n".join(check(call, run.isel(sample=[1, 0]), known))
    for name in ("prompt", "negative_prompt", "seed", "image", "latents"):
        assert f"{name} " in mixed


def test_oracle_sees_a_variable_that_it_does_not_know(right):
    assert "nothing is known of other" in found(right, other=right[1]["latents"] * 2)


def test_a_class_that_is_taken_without_a_call_is_found(tmp_path):
    assert entry(build("StableDiffusionPipeline"), tmp_path).wrong
