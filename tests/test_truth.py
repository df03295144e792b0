"""What a run says of a call is true, or not said: seeds, prompts, labels, images, models, interruptions."""

import json
import time
import warnings
from contextlib import ExitStack
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from hooks import Capture, StepscopeWarning, record
from hooks.errors import NonFiniteError, RunError, UnsupportedPipelineError
from tests.cases import CASES, NEGATIVE, PROMPT, wiring
from tests.models import flux, stable_diffusion, stable_diffusion_xl

SMALL = {"height": 16, "width": 24, "num_inference_steps": 3, "output_type": "np"}
FLUX_SMALL = {"height": 32, "width": 48, "num_inference_steps": 3, "max_sequence_length": 16}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def sd() -> Any:
    return stable_diffusion()


def opened(path: Any) -> xr.Dataset:
    return xr.open_zarr(path).load()


# Seeds: one is stored only if it alone made the sample's noise.


def test_a_generator_that_was_used_before_is_told_by_its_state(sd, tmp_path):
    generator = seeded(7)
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, generator=generator, **SMALL)
        sd(PROMPT, generator=generator, **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [7, -1]
    assert run.generator.values[0] == "seed 7"
    assert run.generator.values[1].startswith("state ")


def test_one_generator_for_several_samples_is_no_seed_of_any(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd([PROMPT] * 2, generator=seeded(7), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [-1, -1]
    assert set(run.generator.values) == {"seed 7, drawn from for 2 samples"}


def test_given_latents_have_no_seed(sd, tmp_path):
    latents = torch.randn(1, 4, 8, 12, generator=seeded(1))
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, generator=seeded(7), latents=latents, **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.seed.values.tolist() == [-1]
    np.testing.assert_array_equal(run.latents[0, 0], latents[0])


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, -1, -5, 2**63 - 1])
def test_any_seed_that_torch_takes_is_kept_as_a_signed_number(sd, seed, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, generator=seeded(seed), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert int(run.seed[0]) % 2**64 == seed % 2**64
    assert run.generator.values.tolist() == [f"seed {seed % 2**64}"]


# Prompts and labels.


def test_embeddings_made_beforehand_have_no_prompt_and_no_text_norm(tmp_path):
    pipe = flux()
    embeds, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=16)
    with record(pipe, tmp_path / "run.zarr"):
        pipe(
            prompt_embeds=embeds,
            pooled_prompt_embeds=pooled,
            negative_prompt=NEGATIVE,
            true_cfg_scale=3.0,
            **FLUX_SMALL,
        )
    run = opened(tmp_path / "run.zarr")
    assert (run.prompt.item(), run.negative_prompt.item()) == ("", NEGATIVE)
    assert run.text_tokens.item() == -1
    text = run.attention_norm.sel(stream=["text", "padding"])
    assert text.sel(branch="positive").isnull().all()
    assert text.sel(branch="negative").notnull().all()


def test_embeddings_made_while_recording_are_known(tmp_path):
    pipe = flux()
    with record(pipe, tmp_path / "run.zarr"):
        embeds, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=16)
        pipe(prompt_embeds=embeds, pooled_prompt_embeds=pooled, **FLUX_SMALL)
        pipe(PROMPT, **FLUX_SMALL)
    run = opened(tmp_path / "run.zarr")
    assert run.prompt.values.tolist() == [PROMPT, PROMPT]
    assert run.text_tokens[0] == run.text_tokens[1] > 0
    assert run.attention_norm.sel(stream="text").notnull().all()


def test_the_label_of_a_failed_call_is_not_the_next_one_s(sd, tmp_path):
    def fail(*args: Any) -> Any:
        raise KeyboardInterrupt

    with record(sd, tmp_path / "run.zarr") as recording:
        recording.label([{"prompt": "the failed one", "seed": 99}])
        with pytest.raises(KeyboardInterrupt):
            sd(PROMPT, callback_on_step_end=fail, **SMALL)
        sd(PROMPT, generator=seeded(3), **SMALL)
    run = opened(tmp_path / "run.zarr")
    assert (run.prompt.item(), run.seed.item()) == (PROMPT, 3)


def test_arguments_of_a_call_are_kept(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, negative_prompt=NEGATIVE, guidance_scale=5.0, **SMALL)
        sd(PROMPT, negative_prompt=NEGATIVE, guidance_scale=3.0, **SMALL)
    run = opened(tmp_path / "run.zarr")
    told = [json.loads(text) for text in run.arguments.values]
    assert [call["guidance_scale"] for call in told] == [5.0, 3.0]
    assert told[0]["num_inference_steps"] == 3
    assert run.negative_prompt.values.tolist() == [NEGATIVE, NEGATIVE]
    assert run.call.values.tolist() == [0, 1]


# Branches that change along a run.


def test_guidance_switched_off_leaves_the_negative_branch_missing(sd, tmp_path):
    cutoff = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    call = SMALL | {"num_inference_steps": 5, "guidance_scale": 5.0}
    with record(sd, tmp_path / "whole.zarr", Capture(velocity=True)):
        sd(PROMPT, generator=seeded(0), **call)
    with record(sd, tmp_path / "cut.zarr", Capture(velocity=True)):
        sd(PROMPT, generator=seeded(0), callback_on_step_end=cutoff, **call)
    whole, cut = opened(tmp_path / "whole.zarr"), opened(tmp_path / "cut.zarr")
    for name in ("residual_norm", "velocity"):
        missing = cut[name].sel(branch="negative").isel(sample=0).isnull()
        present = [not bool(missing.isel(step=i).all()) for i in range(5)]
        assert present == [True, True, False, False, False]
        np.testing.assert_array_equal(cut[name][:, :2], whole[name][:, :2])
    image = cut.residual_norm.sel(branch="positive", stream="image")
    assert image.notnull().all()


# What was decoded and returned.


def test_image_is_the_one_that_was_returned(tmp_path):
    pipe = stable_diffusion()
    black = lambda images, *args: (torch.zeros_like(images), [True] * len(images))  # noqa: E731
    pipe.run_safety_checker = black
    with record(pipe, tmp_path / "run.zarr"):
        returned = pipe(PROMPT, generator=seeded(0), **(SMALL | {"output_type": "pil"})).images
    np.testing.assert_array_equal(opened(tmp_path / "run.zarr").image[0], np.asarray(returned[0]))


def test_latents_that_a_callback_edits_are_the_final_ones(sd, tmp_path):
    def halve(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": values["latents"] / 2}

    edited = {"callback_on_step_end": halve, "generator": seeded(0)}
    latents = sd(PROMPT, **(SMALL | edited | {"output_type": "latent"})).images
    with record(sd, tmp_path / "run.zarr"):
        sd(PROMPT, **(SMALL | edited | {"generator": seeded(0)}))
    np.testing.assert_array_equal(opened(tmp_path / "run.zarr").final_latents, latents)


def test_latents_returned_early_are_recorded(tmp_path):
    """SDXL's image-to-image returns latents before it frees its models."""
    pipe: Any = diffusers.StableDiffusionXLImg2ImgPipeline(**stable_diffusion_xl().components)
    pipe.set_progress_bar_config(disable=True)
    photo = Image.effect_noise((24, 16), 90).convert("RGB")
    call = {"image": photo, "strength": 0.7, "num_inference_steps": 4, "generator": seeded(0)}
    with record(pipe, tmp_path / "run.zarr"):
        latents = pipe(PROMPT, output_type="latent", **call).images
    run = opened(tmp_path / "run.zarr")
    assert "image" not in run
    np.testing.assert_array_equal(run.final_latents, latents)


def test_a_decoded_image_that_is_not_finite_is_an_error(tmp_path):
    pipe = stable_diffusion()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(torch.nan)
    with record(pipe, tmp_path / "run.zarr"):
        with pytest.raises(NonFiniteError, match="VAE"):
            pipe(PROMPT, **SMALL)
    assert not (tmp_path / "run.zarr").exists()


def test_a_pipeline_without_a_vae_is_recorded(tmp_path):
    whole = flux()
    embeds, pooled, _ = whole.encode_prompt(PROMPT, None, max_sequence_length=16)
    parts = {"scheduler": whole.scheduler, "transformer": whole.transformer}
    absent = ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    made_of: Any = parts | dict.fromkeys(absent)
    pipe: Any = diffusers.FluxPipeline(**made_of)
    with record(pipe, tmp_path / "run.zarr"):
        latents = pipe(
            prompt_embeds=embeds, pooled_prompt_embeds=pooled, output_type="latent", **FLUX_SMALL
        ).images
    run = opened(tmp_path / "run.zarr")
    assert run.attrs["vae"] == {}
    assert run.final_latents.size == latents.numel()


# Interrupted calls.


def test_steps_that_an_interrupted_call_did_not_run_are_missing(tmp_path):
    pipe = flux()

    def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return values

    call = FLUX_SMALL | {"num_inference_steps": 5}
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, callback_on_step_end=stop, generator=seeded(0), **call)
        pipe(PROMPT, generator=seeded(0), **call)
    run = opened(tmp_path / "run.zarr")
    assert run.steps_run.values.tolist() == [2, 5]
    assert run.sizes["step"] == 5
    assert run.sigma.notnull().all()
    for name in ("latents", "x0", "residual_norm", "step_seconds"):
        of = run[name].transpose("sample", "step", ...)
        assert np.isnan(of.values[0, 2:]).all()
        if name != "step_seconds":
            np.testing.assert_array_equal(of[0, :2], of[1, :2])


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


# Recordings side by side, and the pipeline afterwards.


@pytest.mark.parametrize("first_out", [0, 1])
def test_recordings_may_be_nested_and_left_in_any_order(sd, first_out, tmp_path):
    before = wiring(sd), type(sd)
    stacks = [ExitStack(), ExitStack()]
    for i, stack in enumerate(stacks):
        stack.enter_context(record(sd, tmp_path / f"{i}.zarr"))
    images = sd(PROMPT, generator=seeded(0), **SMALL).images
    stacks[first_out].close()
    sd(PROMPT, generator=seeded(0), **SMALL)
    stacks[1 - first_out].close()
    assert (wiring(sd), type(sd)) == before
    assert sd(PROMPT, generator=seeded(0), **SMALL).images.tobytes() == images.tobytes()
    runs = [opened(tmp_path / f"{i}.zarr") for i in range(2)]
    assert runs[first_out].sizes["sample"] == 1
    assert runs[1 - first_out].sizes["sample"] == 2
    names = ["latents", "x0", "attention_norm", "residual_norm", "massive_share", "image"]
    for run in runs:
        xr.testing.assert_equal(run[names].isel(sample=0), runs[0][names].isel(sample=0))


def test_inference_mode_may_come_and_go(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        with torch.inference_mode():
            sd(PROMPT, generator=seeded(0), **SMALL)
        sd(PROMPT, generator=seeded(0), **SMALL)
    run = opened(tmp_path / "run.zarr")
    np.testing.assert_array_equal(run.residual_norm[0], run.residual_norm[1])


def test_a_refused_call_leaves_the_attention_processors_as_they_were(tmp_path):
    parts = CASES["sd"].pipe.components
    pipe: Any = diffusers.StableDiffusionPAGPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, pag_scale=0.0, guidance_scale=1.0, **SMALL)
    before = dict(pipe.unet.attn_processors)
    with record(pipe, tmp_path / "run.zarr"):
        with pytest.raises(RunError, match="positive, perturbed"):
            pipe(PROMPT, pag_scale=3.0, guidance_scale=1.0, **SMALL)
    assert dict(pipe.unet.attn_processors) == before


# Time.


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
