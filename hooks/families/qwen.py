"""Qwen-Image: a transformer of double-stream blocks on packed latents, with reference images behind them.

Read from models/transformers/transformer_qwenimage.py (0.42). `img_shapes` says of each row the (frame,
token_y, token_x) of its images, the noisy one first. A mask says which tokens of text are padding; there
is none where no row has any (QwenImagePipeline.encode_prompt).
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from torch import nn

from stepscope.hooks.families.arguments import argument
from stepscope.hooks.families.family import Family, Pass, Tokens, two_passes
from stepscope.hooks.families.flux import unpacked
from stepscope.hooks.families.joint import blocks_of, in_order, text_first
from stepscope.hooks.families.joint_wiring import JointWiring
from stepscope.hooks.sites import Block


def _blocks(model: nn.Module) -> list[Block]:
    return blocks_of("double", model.transformer_blocks, in_order, text_first)


def _tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    hidden: torch.Tensor = argument(args, kwargs, 0, "hidden_states")
    context: torch.Tensor = argument(args, kwargs, 1, "encoder_hidden_states")
    mask: torch.Tensor | None = argument(args, kwargs, 2, "encoder_hidden_states_mask")
    _, y, x = argument(args, kwargs, 4, "img_shapes")[0][0]
    lengths: tuple[int, ...] | None = (context.shape[1],) * len(hidden)
    if mask is not None:
        real = mask.int()
        behind = bool((real.cumprod(1) == real).all())  # the padding stands behind the text
        lengths = tuple(real.sum(1).tolist()) if behind else None
    return Tokens(y * x, hidden.shape[1] - y * x, (y, x), context.shape[1], lengths)


def _guided(seen: Pass) -> bool:
    """True CFG, with a negative prompt (QwenImagePipeline.__call__)."""
    negative = ("negative_prompt", "negative_prompt_embeds")
    told = any(seen.arguments.get(name) is not None for name in negative)
    return told and seen.arguments.get("true_cfg_scale", 1) > 1


in_turn = two_passes(_guided)


_PIPELINES = (
    "QwenImagePipeline",
    "QwenImageImg2ImgPipeline",
    "QwenImageInpaintPipeline",
    "QwenImageEditPipeline",
    "QwenImageEditInpaintPipeline",
    "QwenImageEditPlusPipeline",
)
_CONTROL = "what its ControlNet adds between the blocks of Qwen-Image is not read"

QWEN_IMAGE = Family(
    "Qwen-Image",
    QwenImageTransformer2DModel,
    _blocks,
    _tokens,
    unpacked,
    pipelines=dict.fromkeys(_PIPELINES, in_turn),
    refused={
        "QwenImageControlNetPipeline": _CONTROL,
        "QwenImageControlNetInpaintPipeline": _CONTROL,
        "QwenImageLayeredPipeline": "it denoises the layers of an image as one sequence, so that no "
        "grid holds the tokens of all",
    },
    masked=True,
    thousandths=True,
    rescaled=True,
    wiring=JointWiring,
)
