"""The pocket U-Nets and their IP-Adapters on the command line give what diffusers' own pipelines give."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from stepscope.pocket.process import MODELS
from stepscope.pocket.unet import layout
from stepscope.pocket.unet.image_prompt_file import PROMPTS

PORTRAIT = MODELS.parent / "portraits" / "00_0.png"
PROMPT = "portrait of a person with a hat"


@pytest.mark.parametrize("name", ["style", "object"])
def test_a_shipped_adapter_is_diffusers_own(name, typed, tmp_path):
    prompt = PROMPTS[name]
    kind = layout.LAYOUTS[prompt.backbone]
    words = [f"backbone=pocket_{kind.name}", f"adapter=pocket_{name}", "steps=2", "seeds=[0]"]
    out = tmp_path / "run.zarr"
    answer = typed([*words, f"faces=[{PORTRAIT}]", f"prompts=[{PROMPT}]", f"out={out}"])
    assert answer.status == 0, answer.err
    run = xr.open_zarr(out).load()
    assert float(run.contribution.max()) > 0

    pipe: Any = layout.pipeline(kind).from_pretrained(MODELS / kind.name)
    file = prompt.file(MODELS)
    pipe.load_ip_adapter(
        str(file.parent), subfolder="", weight_name=file.name, image_encoder_folder=None
    )
    encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
        MODELS / "image-encoder", dtype=torch.float32
    )
    processor: Any = CLIPImageProcessorPil.from_pretrained(MODELS / "image-encoder")
    pixels = processor(Image.open(PORTRAIT).convert("RGB"), return_tensors="pt").pixel_values
    with torch.no_grad():
        seen = encoder(pixel_values=pixels).image_embeds[:, None]
    pipe.scheduler.set_timesteps(2)  # on which Euler's first sigma depends
    scale = float(pipe.scheduler.init_noise_sigma)
    made = pipe(
        PROMPT,
        num_inference_steps=2,
        guidance_scale=3.0,
        latents=torch.from_numpy(run.latents.values[:, 0]) / scale,
        ip_adapter_image_embeds=[torch.cat([torch.zeros_like(seen), seen])],
        output_type="latent",
    ).images
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-4)
