"""What fails after a call's first step costs no image: it is told, and raised where none is lost by it."""

import copy
import shutil
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from stepscope.hooks import Capture, StepscopeWarning, record
from stepscope.hooks.errors import RunError, UnsupportedPipelineError
from stepscope.hooks.spool import Spool
from tests.cases import CASES, PROMPT
from tests.models import stable_diffusion
from tests.small import NO_STEP, SMALL, opened


def test_what_cannot_be_collected_costs_no_image_and_is_raised_on_leaving(tmp_path):
    """A pipeline whose images are of no kind that is known here."""
    pipe, returned = stable_diffusion(), []
    pipe.image_processor.postprocess = lambda *args, **kwargs: ["of my own"]

    def calls() -> None:
        with record(pipe, tmp_path / "run.zarr"):
            with pytest.warns(StepscopeWarning, match=r"nothing is recorded .*AttributeError"):
                returned.append(pipe(PROMPT, **SMALL).images)

    with pytest.raises(AttributeError):
        calls()
    assert returned == [["of my own"]]
    assert not (tmp_path / "run.zarr").exists()


def test_warnings_that_are_errors_cost_no_image(sd, tmp_path):
    def spoil(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": values["latents"] * torch.nan}

    returned = []

    def calls() -> None:
        with record(sd, tmp_path / "run.zarr"):
            returned.append(sd(PROMPT, **SMALL, callback_on_step_end=spoil).images)

    with warnings.catch_warnings():
        warnings.simplefilter("error", StepscopeWarning)
        with pytest.raises(StepscopeWarning, match="not finite"):
            calls()
    assert len(returned) == 1
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]


def test_a_disk_that_fails_along_a_call_costs_no_image(tmp_path, monkeypatch):
    case, path = CASES["flux"], tmp_path / "run.zarr"
    whole, plain = Capture(level="full", sites=("double.00.attention.image",)), case()
    returned = []

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    def calls() -> None:
        with record(case.pipe, path, whole):
            with monkeypatch.context() as disk:
                disk.setattr(Spool, "put", full)
                returned.append(case())
            with pytest.raises(OSError, match="No space"):
                case(**NO_STEP)
            returned.append(case())

    calls()
    for images in returned:
        np.testing.assert_array_equal(images, plain)
    assert opened(path).done.values.tolist() == [True]
    assert [p.name for p in tmp_path.iterdir()] == ["run.zarr"]


def test_a_step_that_is_not_known_costs_no_image_but_the_record_of_it(sd, tmp_path, monkeypatch):
    """The denoiser is left out of the last step."""
    returned = []

    def idle(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            nothing = lambda self, x, *args, **kwargs: (torch.zeros_like(x),)  # noqa: E731
            monkeypatch.setattr(type(sd.unet), "__call__", nothing)
        return {}

    def calls() -> None:
        with record(sd, tmp_path / "run.zarr"):
            sd(PROMPT, **SMALL)
            with pytest.warns(StepscopeWarning, match="nothing is recorded .*step 2 of Stable"):
                returned.append(sd(PROMPT, **SMALL, callback_on_step_end=idle).images)

    with pytest.raises(UnsupportedPipelineError, match="step 2 of StableDiffusionPipeline ran"):
        calls()
    monkeypatch.undo()
    assert len(returned[0]) == 1
    assert opened(tmp_path / "run.zarr").done.values.tolist() == [True]


def test_a_run_that_is_gone_is_told_before_a_step_or_after_the_call(sd, tmp_path, monkeypatch):
    path, returned = tmp_path / "run.zarr", []
    with record(sd, path):
        sd(PROMPT, **SMALL)

    def calls() -> None:
        with record(sd, path):
            shutil.rmtree(path)
            with pytest.raises(RunError, match="is gone"):
                sd(PROMPT, **SMALL, **NO_STEP)
        with record(sd, path):
            sd(PROMPT, **SMALL)
        with record(sd, path):
            remove = lambda *args: shutil.rmtree(path, ignore_errors=True) or {}  # noqa: E731
            returned.append(sd(PROMPT, **SMALL, callback_on_step_end=remove).images)

    with pytest.raises(RunError, match="is gone"):
        calls()
    assert len(returned) == 1


def test_blocks_that_are_replaced_along_a_call_cost_no_image(tmp_path):
    """From the second step on the first block is another one, in which no hook is."""
    case, path, returned = CASES["flux"], tmp_path / "run.zarr", []
    blocks = case.pipe.transformer.transformer_blocks
    own, other = blocks[0], copy.deepcopy(blocks[0])

    def made() -> Any:
        def replace(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            blocks[0] = other
            return {}

        try:
            return case(callback_on_step_end=replace)
        finally:
            blocks[0] = own

    plain = made()

    def calls() -> None:
        with record(case.pipe, path):
            with pytest.warns(StepscopeWarning, match="blocks were compiled, replaced or skipped"):
                returned.append(made())

    with pytest.raises(UnsupportedPipelineError, match="in step 1"):
        calls()
    np.testing.assert_array_equal(returned[0], plain)
    assert not path.exists()
