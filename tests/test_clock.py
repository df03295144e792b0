"""The clock says which step and branch a pass is; what it cannot place, or hooks cannot see, is refused."""

import copy
import time
from typing import Any

import diffusers
import numpy as np
import pytest
import xarray as xr
from PIL import Image
from torch import nn

from stepscope.hooks import Capture, record
from stepscope.hooks.clock import Listener, listening
from stepscope.hooks.errors import UnsupportedPipelineError
from tests.cases import CASES, PROMPT, unguided
from tests.small import opened

GUIDED = [case for case in CASES.values() if case.branches == 2]
COMPARED = ("velocity", "attention_norm", "residual_norm")


@pytest.mark.parametrize("case", GUIDED, ids=lambda case: case.name)
def test_positive_branch_is_a_run_on_the_positive_prompt_alone(case, recorded):
    guided = recorded(case).run
    alone = recorded(unguided(case)).run
    assert guided.branch.values.tolist() == ["positive", "negative"]
    assert alone.branch.values.tolist() == ["positive"]
    for name in COMPARED:
        seen = guided[name].sel(branch="positive")[:, 0]
        np.testing.assert_allclose(seen, alone[name][:, 0, 0], rtol=2e-4, atol=1e-5)


# FLUX's ControlNets run once a step, with the positive prompt: a negative pass there has no such twin.
NEGATIVES = [case for case in GUIDED if not (case.is_flux and case.has_controlnet)]


@pytest.mark.parametrize("case", NEGATIVES, ids=lambda case: case.name)
def test_negative_branch_is_a_run_on_the_negative_prompt_alone(case, recorded, tmp_path):
    guided = recorded(case).run
    alone = unguided(case)
    with record(alone.pipe, tmp_path / "run.zarr", Capture(velocity=True)):
        alone(seeds=(0, 1), prompt=[case.negative] * 2)
    run = xr.open_zarr(tmp_path / "run.zarr")
    for name in COMPARED:
        seen = guided[name].sel(branch="negative")[:, 0]
        np.testing.assert_allclose(seen, run[name][:, 0, 0], rtol=2e-4, atol=1e-5)
    assert not np.allclose(*guided.velocity[:, 0].transpose("branch", ...), atol=1e-3)


def test_ticks_follow_the_scheduler():
    case, seen = CASES["flux_cfg"], []

    def tick(tick: Any) -> None:
        seen.append((clock.step, clock.passes, tick.index, float(tick.timestep)))

    with listening(case.pipe, Listener(tick=tick)) as clock:
        case(steps=4)
    timesteps = case.pipe.scheduler.timesteps.tolist()
    assert seen == [(i, 2, i, timesteps[i]) for i in range(4)]
    assert clock.steps == clock.step == 4


def rerun(times: int):
    """A forward hook that calls its module again, as guidance by a perturbed pass does."""
    state = {"inside": False}

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not state["inside"]:
            state["inside"] = True
            for _ in range(times):
                module(*args, **kwargs)
            state["inside"] = False

    return hook


def test_a_pass_that_no_guidance_asked_for_is_refused(tmp_path):
    case = CASES["flux"]
    handle = case.denoiser.register_forward_hook(rerun(1), with_kwargs=True)
    try:
        with pytest.raises(UnsupportedPipelineError, match="pass 2 of step 0 of FluxPipeline"):
            with record(case.pipe, tmp_path / "run.zarr"):
                case()
    finally:
        handle.remove()
    assert not (tmp_path / "run.zarr").exists()


def test_unknown_scheduler_is_refused_with_those_that_are_known(tmp_path):
    pipe = copy.copy(CASES["sd"].pipe)
    pipe.scheduler = diffusers.HeunDiscreteScheduler()
    with pytest.raises(UnsupportedPipelineError, match=r"HeunDiscreteScheduler.*DDIMScheduler"):
        with record(pipe, tmp_path / "run.zarr"):
            pytest.fail("a step of Heun's is two ticks")


def test_unknown_denoiser_is_refused_with_those_that_are_known(tmp_path):
    pipe = copy.copy(CASES["flux"].pipe)
    pipe.transformer = nn.Linear(2, 2)
    with pytest.raises(
        UnsupportedPipelineError, match=r"blocks of its Linear are not known.*FluxTransformer2DMo"
    ):
        with record(pipe, tmp_path / "run.zarr"):
            pytest.fail("nothing is known of its blocks")


def test_pipeline_without_a_denoiser_is_refused(tmp_path):
    class Empty:
        scheduler = diffusers.DDIMScheduler()

    with pytest.raises(
        UnsupportedPipelineError, match="Empty has neither a transformer nor a unet"
    ):
        with record(Empty(), tmp_path / "run.zarr"):
            pytest.fail("there is nothing to record")


def test_block_replaced_while_recording_is_noticed(tmp_path):
    """What torch.compile makes of a block after its hooks were laid may not have them."""
    case = CASES["flux"]
    blocks = case.denoiser.transformer_blocks
    original, silent = blocks[1], copy.deepcopy(blocks[1])
    try:
        with record(case.pipe, tmp_path / "run.zarr"):
            blocks[1] = silent
            with pytest.raises(UnsupportedPipelineError, match="14 of 16 hooks"):
                case()
    finally:
        blocks[1] = original
    assert not (tmp_path / "run.zarr").exists()


def test_encoding_an_image_is_no_part_of_the_first_step(tmp_path, monkeypatch):
    parts = CASES["sd"].pipe.components
    pipe: Any = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    encode = pipe.vae.encode

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.5)
        return encode(*args, **kwargs)

    monkeypatch.setattr(pipe.vae, "encode", slow)
    photo = Image.effect_noise((24, 16), 90).convert("RGB")
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, image=photo, num_inference_steps=4, strength=0.7)
    run = opened(tmp_path / "run.zarr")
    assert run.stage_seconds.sel(stage="vae").item() >= 0.5
    assert float(run.step_seconds[0, 0]) < 0.5
