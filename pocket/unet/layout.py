"""The two U-Nets: diffusers' own classes with small numbers, their text encoders, their folders.

Both use flux-dev's autoencoder (4 pixels a latent, 16 channels; Stable Diffusion's pipelines leave out its
shift, which is 0.0056), so 128 pixels are 32 x 32 latents.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from stepscope.pocket import folders
from stepscope.pocket.flow import TEXT_WIDTH
from stepscope.pocket.process import autocast, device, on_device
from stepscope.pocket.text import clip_config
from stepscope.pocket.unet.reading import LAYERS, Text, Words, tokenizer
from stepscope.pocket.world import SIZE

CHANNELS, GRID = 16, 32
TIME_WIDTH = 32
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
}
"""Stable Diffusion's schedule, as its folders publish it."""
# height, width, crop's top and left, height, width: what StableDiffusionXLPipeline says by default.
TIME_IDS = (SIZE, SIZE, 0, 0, SIZE, SIZE)


@dataclass(frozen=True)
class Layout:
    """One backbone: its folder among the models, its U-Net's configuration."""

    name: str
    unet: dict[str, Any]

    @property
    def xl(self) -> bool:
        """Whether it has two text encoders, a pooled text and sizes."""
        return self.name == "sdxl"


_COMMON = {
    "sample_size": GRID,
    "in_channels": CHANNELS,
    "out_channels": CHANNELS,
    "layers_per_block": 2,
    "norm_num_groups": 16,
}
SD15 = Layout(
    "sd15",
    _COMMON
    | {
        "block_out_channels": (64, 80, 96),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (4, 5, 6),
        "cross_attention_dim": TEXT_WIDTH,
    },
)
SDXL = Layout(
    "sdxl",
    _COMMON
    | {
        "block_out_channels": (64, 96, 112),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4, 7),
        "cross_attention_dim": 2 * TEXT_WIDTH,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_WIDTH,
        "projection_class_embeddings_input_dim": TEXT_WIDTH + len(TIME_IDS) * TIME_WIDTH,
    },
)
LAYOUTS = {layout.name: layout for layout in (SD15, SDXL)}


def new_unet(layout: Layout) -> UNet2DConditionModel:
    """An untrained U-Net on the current device."""
    return on_device(UNet2DConditionModel(**layout.unet)).train()


def new_text(layout: Layout) -> Text:
    """Untrained text encoders on the current device, sized for the grammar's tokenizer."""
    kinds = (CLIPTextModel, CLIPTextModelWithProjection) if layout.xl else (CLIPTextModel,)
    return Text([kind(clip_config(tokenizer(), LAYERS)) for kind in kinds]).to(device())


def predicted(
    unet: UNet2DConditionModel, x: Tensor, time: Tensor, words: Words, image: Tensor | None = None
) -> Tensor:
    """The U-Net's noise at x (b, 16, 32, 32) and time (b,), float32.

    image: embeddings of an image prompt, (b, image, channel), for a U-Net with an IP-Adapter.
    """
    given: dict[str, Any] = {}
    if words.pooled is not None:
        sizes = x.new_tensor(TIME_IDS).expand(len(x), -1)
        given |= {"text_embeds": words.pooled, "time_ids": sizes}
    if image is not None:
        given["image_embeds"] = [image]
    with autocast():
        return unet(
            x, time, words.tokens, added_cond_kwargs=given or None, return_dict=False
        )[0].float()  # fmt: skip


def save(models: Path, layout: Layout, unet: nn.Module, words: Text) -> None:
    """Write the pipeline's folder: half-precision weights, a link to the autoencoder."""
    folder = models / layout.name
    folders.write_half(unet, folder / "unet")
    names = ("text_encoder", "text_encoder_2")
    for name, encoder in zip(names, words.encoders, strict=False):
        folders.write_half(encoder, folder / name)
        folders.say_float32(folder / name / "config.json")
        tokenizer().save_pretrained(folder / name.replace("text_encoder", "tokenizer"))
    link = folder / "vae"
    if not link.is_symlink():
        link.symlink_to(Path("..") / folders.DEV / "vae", target_is_directory=True)
    _pipeline(models, layout, unet, words).save_config(folder)
    scheduler(layout).save_pretrained(folder / "scheduler")


def load(models: Path, layout: Layout) -> tuple[UNet2DConditionModel, Text]:
    """The shipped U-Net and text encoders, frozen."""
    folder = models / layout.name
    unet: Any = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    kinds = (CLIPTextModel, CLIPTextModelWithProjection) if layout.xl else (CLIPTextModel,)
    names = ("text_encoder", "text_encoder_2")
    encoders = [
        kind.from_pretrained(folder / name, dtype=torch.float32)
        for kind, name in zip(kinds, names, strict=False)
    ]
    words = Text(encoders).to(device())
    return on_device(unet).requires_grad_(False), words.requires_grad_(False)


def pipeline(layout: Layout) -> Any:
    """diffusers' class of the backbone's folder."""
    return StableDiffusionXLPipeline if layout.xl else StableDiffusionPipeline


def scheduler(layout: Layout) -> Any:
    """The scheduler that the published folder names, in this schedule."""
    if layout.xl:
        kept = {k: v for k, v in NOISE.items() if k not in ("clip_sample", "set_alpha_to_one")}
        return EulerDiscreteScheduler(**kept, timestep_spacing="leading")
    return DDIMScheduler(**NOISE)


def _pipeline(models: Path, layout: Layout, unet: Any, words: Text) -> Any:
    common: dict[str, Any] = {
        "vae": folders.load_vae(models),
        "text_encoder": words.encoders[0],
        "tokenizer": tokenizer(),
        "unet": unet,
        "scheduler": scheduler(layout),
    }
    if layout.xl:
        second = {"text_encoder_2": words.encoders[1], "tokenizer_2": tokenizer()}
        return pipeline(layout)(**common, **second, add_watermarker=False)
    return pipeline(layout)(
        **common, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
