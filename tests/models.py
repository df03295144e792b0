"""Tiny random pipelines of every kind that `record` promises to work on."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
)

from stepscope.probes.adapters.infusenet_network import InfuseNet

REFERENCE = Path(__file__).parent / "reference"
INFINITE_YOU = REFERENCE / "infinite-you"


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """The module with every weight drawn anew, also those that start as zeros (a ControlNet's)."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 25
        weight.data = torch.randn(weight.shape, generator=generator) / fan**0.5
    return module.eval().requires_grad_(False)


def flux(folder: str = "flux-dev") -> Any:
    pipe = FluxPipeline.from_pretrained(INFINITE_YOU / folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def flux_controlnet(network: Any) -> Any:
    parts = flux().components
    parts = {k: v for k, v in parts.items() if k not in ("image_encoder", "feature_extractor")}
    pipe = FluxControlNetPipeline(**parts, controlnet=network)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plain_controlnet() -> Any:
    """1 double and 2 single blocks for a transformer of 3 and 5: residuals are shared by blocks."""
    sizes = {
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    }
    return randomised(FluxControlNetModel(patch_size=1, **sizes))


def infusenet() -> InfuseNet:
    """InfiniteYou's reference network, reading 5 random identity tokens of one face."""
    network: Any = InfuseNet.from_pretrained(INFINITE_YOU / "infinite-you" / "InfuseNetModel")
    network.identity = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(3))
    return network


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(INFINITE_YOU / "flux-dev" / "tokenizer")


def clip(kind: Any) -> Any:
    config = CLIPTextConfig(
        vocab_size=23,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return randomised(kind(config), seed=4)


def vae() -> Any:
    config: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 4,
    }
    return randomised(AutoencoderKL(**config), seed=5)


# Two levels with attention, of which the second is half as fine, as in Stable Diffusion.
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
}
UP_BLOCKS = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
# Attention on the second level alone, two deep, as in Stable Diffusion XL.
UNET_XL: dict[str, Any] = UNET | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}
UP_BLOCKS_XL = ("CrossAttnUpBlock2D", "UpBlock2D")


def control_network(unet: dict[str, Any], context: int) -> Any:
    sizes = {k: v for k, v in unet.items() if k != "sample_size"}
    sizes |= {"cross_attention_dim": context, "conditioning_embedding_out_channels": (4, 8)}
    return randomised(ControlNetModel(**sizes), seed=6)


def stable_diffusion(*, controlnet: bool = False) -> Any:
    parts = {
        "vae": vae(),
        "text_encoder": clip(CLIPTextModel),
        "tokenizer": tokenizer(),
        "unet": randomised(
            UNet2DConditionModel(up_block_types=UP_BLOCKS, cross_attention_dim=32, **UNET)
        ),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    if controlnet:
        network = control_network(UNET, 32)
        pipe = StableDiffusionControlNetPipeline(**parts, controlnet=network)
    else:
        pipe = StableDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_xl(*, controlnet: bool = False) -> Any:
    parts = {
        "vae": vae(),
        "text_encoder": clip(CLIPTextModel),
        "text_encoder_2": clip(CLIPTextModelWithProjection),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer(),
        "unet": randomised(
            UNet2DConditionModel(up_block_types=UP_BLOCKS_XL, cross_attention_dim=64, **UNET_XL)
        ),
        "scheduler": EulerDiscreteScheduler(),
        "add_watermarker": False,
    }
    if controlnet:
        network = control_network(UNET_XL, 64)
        pipe = StableDiffusionXLControlNetPipeline(**parts, controlnet=network)
    else:
        pipe = StableDiffusionXLPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


PIPELINES: dict[str, Callable[[], Any]] = {
    "flux": flux,
    "flux_controlnet": lambda: flux_controlnet(plain_controlnet()),
    "infusenet": lambda: flux_controlnet(infusenet()),
    "sd": stable_diffusion,
    "sd_controlnet": lambda: stable_diffusion(controlnet=True),
    "sdxl": stable_diffusion_xl,
    "sdxl_controlnet": lambda: stable_diffusion_xl(controlnet=True),
}


@cache
def pipeline(name: str) -> Any:
    """The pipeline of that name, built once; a test that changes it puts it back."""
    if name in PIPELINES:
        return PIPELINES[name]()
    from tests.family_models import MADE  # which is made of what is above

    return MADE[name]()
