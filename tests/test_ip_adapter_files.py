"""FaceID and FLUX's IP-Adapter, of which no reference is published, against diffusers' own pipelines."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxPipeline, StableDiffusionPipeline

from stepscope.probes import check
from tests.adapter_words import IP_ADAPTER, embedding, picture, unet_words
from tests.made_adapters import face_id_file, flux_file
from tests.models import INFINITE_YOU
from tests.shell import Words, listed, tiny

PROMPT = "a man portrait cinematic"


def final(typed: Any, words: Words, out: str) -> xr.Dataset:
    answer = typed([*words, f"out={out}"])
    assert answer.status == 0, answer.err
    return xr.open_zarr(out).load()


def face_id_words(folder: Path, *, with_lora: bool = True) -> Words:
    return unet_words(
        "sd15",
        adapter="ip_adapter",
        adapter__path=face_id_file(folder, with_lora=with_lora),
        adapter__face_id="true",
        faces=listed(embedding(folder, 0)),
        true_cfg=4.0,
    )


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("with_lora", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_face_id_is_diffusers_own(with_lora, typed, tmp_path):
    run = final(typed, face_id_words(tmp_path, with_lora=with_lora), "run.zarr")
    pipe: Any = StableDiffusionPipeline.from_pretrained(IP_ADAPTER / "sd15")
    path = face_id_file(tmp_path, with_lora=with_lora)
    pipe.load_ip_adapter(
        str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None
    )
    face = torch.from_numpy(run.face_embedding.values)[:, None, None]
    made = pipe(
        PROMPT,
        guidance_scale=4.0,
        num_inference_steps=3,
        height=64,
        width=64,
        latents=noise(1, 4, 8, 8),
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(face), face])],
        output_type="latent",
    ).images
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-4)
    kinds = {str(name).partition(":")[0] for name in run.injection_adapter.values}
    assert kinds == ({"ip_adapter", "lora"} if with_lora else {"ip_adapter"})


def test_face_ids_own_lora_is_off_where_the_adapter_is(typed, tmp_path):
    words = face_id_words(tmp_path)
    off = final(typed, [*words, "adapter.scale=0.0"], "off.zarr")
    late = [*words, "adapter.window=[1,2]", "adapter.window_unit=step"]
    late = final(typed, late, "late.zarr")
    kept = [w for w in words if not w.startswith(("adapter", "faces"))]
    none = final(typed, [*kept, "adapter=none"], "none.zarr")
    np.testing.assert_array_equal(off.final_latents, none.final_latents)
    np.testing.assert_array_equal(late.latents[:, :2], none.latents[:, :2])
    assert not late.contribution[:, [0, 2]].values.any()
    assert (late.contribution[:, 1].max("branch") > 0).all()


def test_a_recording_of_face_id_means_what_it_says(typed, tmp_path):
    answer = typed(face_id_words(tmp_path), main=check.main)
    assert answer.status == 0, answer.out + answer.err


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_flux_s_is_diffusers_own(cfg, typed, tmp_path):
    path, given = flux_file(tmp_path), picture(tmp_path, 0)
    words = tiny(
        adapter="ip_adapter",
        adapter__path=path,
        adapter__scale=0.7,
        faces=listed(given),
        steps=3,
        guidance=3.5,
        true_cfg=cfg,
        negative_prompt="sketch" if cfg > 1 else None,
    )
    run = final(typed, words, "run.zarr")
    pipe: Any = FluxPipeline.from_pretrained(INFINITE_YOU / "flux-dev")
    pipe.load_ip_adapter(
        str(path.parent), weight_name=path.name, image_encoder_pretrained_model_name_or_path=None
    )
    pipe.set_ip_adapter_scale(0.7)
    embeds = torch.from_numpy(np.load(given)["image_embeds"])[None]
    more = {"negative_prompt": "sketch", "true_cfg_scale": cfg} if cfg > 1 else {}
    latents = FluxPipeline._pack_latents(noise(1, 4, 16, 16), 1, 4, 16, 16)
    made = pipe(
        PROMPT,
        guidance_scale=3.5,
        num_inference_steps=3,
        height=64,
        width=64,
        max_sequence_length=32,
        latents=latents,
        ip_adapter_image_embeds=[embeds],
        negative_ip_adapter_image_embeds=[torch.zeros_like(embeds)],
        output_type="latent",
        **more,
    ).images
    made = FluxPipeline._unpack_latents(made, 64, 64, 4)
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-5)
    assert (run.contribution.max("branch") > 0).all()


def test_flux_s_is_off_where_its_window_is_closed(typed, tmp_path):
    words = tiny(
        adapter="ip_adapter",
        adapter__path=flux_file(tmp_path),
        faces=listed(picture(tmp_path, 0)),
        steps=3,
    )
    late = [*words, "adapter.window=[1,2]", "adapter.window_unit=step"]
    late, off = (
        final(typed, late, "late.zarr"),
        final(typed, [*words, "adapter.scale=0"], "off.zarr"),
    )
    none = final(typed, tiny(steps=3), "none.zarr")
    np.testing.assert_array_equal(off.final_latents, none.final_latents)
    np.testing.assert_array_equal(late.latents[:, :2], none.latents[:, :2])
    assert late.contribution[:, 1].values.any()
