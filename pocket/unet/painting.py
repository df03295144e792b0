"""Pictures of the U-Nets with their adapters, by diffusers' own pipelines: the base, and four steps."""

from pathlib import Path
from typing import Any

import torch
from diffusers import LCMScheduler, StableDiffusionXLControlNetPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from einops import rearrange
from PIL import Image
from torch import Tensor

from stepscope.pocket.process import device
from stepscope.pocket.unet import few_steps, instantid, layout
from stepscope.pocket.unet.image_prompt_file import PROMPTS
from stepscope.probes.adapters.image_attention import each_its_own
from stepscope.probes.adapters.instantid_network import BRANCH, NETWORK, IdentityNet

STEPS = 20
AT_ONCE = 8


def with_image_prompt(models: Path, name: str, *, few: bool) -> Any:
    """The pipeline with an IP-Adapter of image_prompt.PROMPTS; few: with the four-step LoRA."""
    prompt = PROMPTS[name]
    kind = layout.LAYOUTS[prompt.backbone]
    pipe = layout.pipeline(kind).from_pretrained(models / kind.name)
    return _with(pipe, kind, models, prompt.file(models), few=few)


def with_instantid(models: Path, *, few: bool) -> Any:
    """Likewise with InstantID's two networks."""
    kind = layout.LAYOUTS["sdxl"]
    folder = models / instantid.FOLDER
    network = IdentityNet.from_pretrained(folder / NETWORK)
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
        models / kind.name, controlnet=network
    )
    return _with(pipe, kind, models, folder / BRANCH, few=few)


def _with(pipe: Any, kind: layout.Layout, models: Path, file: Path, *, few: bool) -> Any:
    pipe.set_progress_bar_config(disable=True)
    if few:
        pipe.load_lora_weights(
            str(few_steps.folder(models, kind)), weight_name=LORA_WEIGHT_NAME_SAFE
        )
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    pipe.load_ip_adapter(
        str(file.parent), subfolder="", weight_name=file.name, image_encoder_folder=None
    )
    return pipe.to(device())


@torch.no_grad()
def painted(
    pipe: Any,
    ids: Tensor,
    read: Tensor,
    scale: float,
    *,
    few: bool,
    seed: int,
    steps: int = STEPS,
    drawings: Tensor | None = None,
) -> Tensor:
    """Pictures (n, 3, 128, 128) in [0, 1], on the device.

    ids: of a prompt each, (n, 32). read: what the adapter reads of each reference, (n, numbers). drawings:
    of keypoints, (n, 3, 128, 128) uint8, for InstantID.
    """
    pipe.set_ip_adapter_scale(scale)
    words = [pipe.tokenizer.decode(one, skip_special_tokens=True) for one in ids]
    wide = (1, 1) if drawings is not None else (1,)  # a resampler reads tokens, one here
    parts = []
    for part in torch.arange(len(read)).split(AT_ONCE):
        own = read[part.to(read.device)].unflatten(-1, (*wide, -1))
        given = own if few else torch.cat([torch.zeros_like(own), own])
        more: dict[str, Any] = {}
        if drawings is not None:
            (tokens,) = pipe.unet.encoder_hid_proj([given])
            pipe.controlnet.identity = tokens[:, 0]
            more = {"image": [_image(drawings[i]) for i in part]}
            more["controlnet_conditioning_scale"] = scale
        with each_its_own(pipe):  # diffusers' own argument mixes the pictures of a batch
            result = pipe(
                [words[i] for i in part],
                num_inference_steps=few_steps.STEPS if few else steps,
                guidance_scale=1.0 if few else few_steps.GUIDANCE,
                ip_adapter_image_embeds=[given],
                generator=torch.Generator().manual_seed(seed + int(part[0])),
                output_type="pt",
                **more,
            )
        parts.append(result.images.float())
    return torch.cat(parts)


def _image(drawing: Tensor) -> Image.Image:
    return Image.fromarray(rearrange(drawing, "c y x -> y x c").cpu().numpy())
