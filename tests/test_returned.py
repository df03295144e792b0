"""Latents and images of a run are those that the call decoded and returned, as far as it ran."""

from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from stepscope.hooks import record
from tests.cases import PROMPT
from tests.models import flux, stable_diffusion, stable_diffusion_xl
from tests.small import FLUX_SMALL, SMALL, opened, seeded


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
