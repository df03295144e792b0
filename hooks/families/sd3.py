"""Stable Diffusion 3 and 3.5: a transformer of joint blocks that cuts latents into patches itself.

Read from models/transformers/transformer_sd3.py and models/attention.py (JointTransformerBlock, 0.42).
The text of three encoders stands in one stream, each with padding of its own, which is not told apart.
The last block's text goes nowhere. The first blocks of SD3.5 have a second attention, of the image to
itself alone: `dual.00` stands beside `double.00`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.families.arguments import argument
from stepscope.hooks.families.family import Family, Pass, Tokens
from stepscope.hooks.families.joint import (
    BOTH,
    first_alone,
    image_alone,
    in_order,
    second_alone,
    text_first,
)
from stepscope.hooks.families.joint_wiring import JointWiring
from stepscope.hooks.families.unet import guided, perturbed
from stepscope.hooks.sites import Block, Site

PATCH = 2  # latents along each side of a token, in all models that were published


def _blocks(model: nn.Module) -> list[Block]:
    config: Any = model.config
    if config.patch_size != PATCH:
        raise UnsupportedPipelineError(
            f"its SD3Transformer2DModel has patches of {config.patch_size} latents, and {PATCH} are known"
        )
    found = []
    for index, module in enumerate(model.transformer_blocks):  # pyright: ignore[reportArgumentType]
        attention = Site("attention", BOTH, module.attn, in_order)
        residual = Site("residual", BOTH, module, text_first)
        if module.context_pre_only:
            attention = Site("attention", ("image",), module.attn, first_alone)
            residual = Site("residual", ("image",), module, second_alone)
        found.append(Block(f"double.{index:02d}", "double", index, module, (attention, residual)))
        if module.attn2 is not None:
            site = Site("attention", ("image",), module.attn2, image_alone)
            found.append(Block(f"dual.{index:02d}", "dual", index, module.attn2, (site,)))
    return found


def _tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    latents: torch.Tensor = argument(args, kwargs, 0, "hidden_states")
    y, x = latents.shape[-2] // PATCH, latents.shape[-1] // PATCH
    context: torch.Tensor = argument(args, kwargs, 1, "encoder_hidden_states")
    left_out = argument(args, kwargs, 7, "skip_layers") or ()
    skipped = tuple(f"{kind}.{i:02d}" for i in left_out for kind in ("double", "dual"))
    return Tokens(y * x, 0, (y, x), context.shape[1], skipped=skipped)


def unpacked(latents: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """Latents are handed over as the VAE has them."""
    return latents


def _skipping(seen: Pass) -> tuple[str, ...] | None:
    """Classifier-free guidance, and with skip-layer guidance a pass of the prompt without some blocks."""
    if seen.nth == 1 and seen.arguments.get("skip_guidance_layers") is not None:
        return ("perturbed",) if seen.parts == 1 else None
    return guided(seen)


_CONTROL = "what its ControlNet adds between the blocks of SD3 is not read"

SD3 = Family(
    "Stable Diffusion 3",
    SD3Transformer2DModel,
    _blocks,
    _tokens,
    unpacked,
    pipelines={
        "StableDiffusion3Pipeline": _skipping,
        "StableDiffusion3Img2ImgPipeline": guided,
        "StableDiffusion3InpaintPipeline": guided,
        "StableDiffusion3PAGPipeline": perturbed,
        "StableDiffusion3PAGImg2ImgPipeline": perturbed,
    },
    refused={
        "StableDiffusion3ControlNetPipeline": _CONTROL,
        "StableDiffusion3ControlNetInpaintingPipeline": _CONTROL,
    },
    wiring=JointWiring,
)
