"""A call that would make a run untrue is refused before it runs, and what is not recorded is said."""

import warnings
from typing import Any

import diffusers
import pytest
import torch
import xarray as xr
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from PIL import Image

from stepscope.hooks import StepscopeWarning, record
from stepscope.hooks.errors import RunError, UnsupportedPipelineError
from tests.cases import CASES, PROMPT
from tests.models import stable_diffusion
from tests.small import SMALL, opened

# Runs of one model, one schedule.


def test_another_model_is_refused_before_it_runs(tmp_path):
    one, other = stable_diffusion(), stable_diffusion()
    with torch.no_grad():
        next(other.unet.parameters()).add_(1)
    with record(one, tmp_path / "run.zarr"):
        one(PROMPT, **SMALL)
    before = opened(tmp_path / "run.zarr")
    with record(other, tmp_path / "run.zarr"):
        with pytest.raises(RunError, match="another models: unet"):
            other(PROMPT, callback_on_step_end=lambda *a: pytest.fail("a step ran"), **SMALL)
    xr.testing.assert_identical(opened(tmp_path / "run.zarr"), before)


def test_another_scheduler_is_refused_before_it_runs(tmp_path):
    pipe = stable_diffusion()
    with record(pipe, tmp_path / "run.zarr"):
        config = pipe.scheduler.config
        pipe.scheduler = EulerDiscreteScheduler.from_config(config)
        pipe(PROMPT, **SMALL)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(config)
        with pytest.raises(RunError, match="EulerDiscreteScheduler -> DPMSolverMultistep"):
            pipe(PROMPT, callback_on_step_end=lambda *a: pytest.fail("a step ran"), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.attrs["scheduler"]["class"] == "EulerDiscreteScheduler"
    assert run.sizes["sample"] == 1


def test_another_number_of_steps_is_refused_before_it_runs(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, **SMALL)
        more = SMALL | {"num_inference_steps": 4}
        with pytest.raises(RunError, match="another schedule: 3 steps"):
            sd(PROMPT, callback_on_step_end=lambda *a: pytest.fail("a step ran"), **more)
    assert opened(tmp_path / "run.zarr").sizes["sample"] == 1


# What is not recorded is said.


def test_a_loop_of_one_s_own_is_refused(sd, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepscopeWarning)
        with record(sd, tmp_path / "run.zarr"):
            with pytest.raises(UnsupportedPipelineError, match="outside of a call"):
                sd.unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 4, 32))


def test_another_pipeline_with_the_same_denoiser_may_be_recorded_beside(sd, tmp_path):
    other: Any = diffusers.StableDiffusionImg2ImgPipeline(
        **sd.components, requires_safety_checker=False
    )
    other.set_progress_bar_config(disable=True)
    photo = Image.effect_noise((24, 16), 90).convert("RGB")
    with record(sd, tmp_path / "one.zarr"), record(other, tmp_path / "other.zarr"):
        sd(PROMPT, **SMALL)
        other(PROMPT, image=photo, num_inference_steps=4, strength=0.7)
    assert opened(tmp_path / "one.zarr").sizes["step"] == 3
    assert opened(tmp_path / "other.zarr").sizes["step"] == 2


def test_a_denoiser_replaced_while_recording_is_refused(tmp_path):
    pipe = stable_diffusion()
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, **SMALL)
        pipe.unet = stable_diffusion().unet
        with pytest.raises(UnsupportedPipelineError, match="was replaced after recording began"):
            pipe(PROMPT, **SMALL)


def test_a_loop_that_is_not_known_is_refused_on_entry(tmp_path):
    class Mine(diffusers.StableDiffusionPipeline):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    pipe = Mine(**CASES["sd"].pipe.components, requires_safety_checker=False)
    with pytest.raises(UnsupportedPipelineError, match=r"Mine.__call__.*register_pipeline"):
        with record(pipe, tmp_path / "run.zarr"):
            pytest.fail("nothing tells what its passes are")
