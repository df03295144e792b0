"""FLUX.1: transformers of double- and single-stream blocks on packed latents, and their ControlNets.

How diffusers' modules return their streams (models/transformers/transformer_flux.py, 0.42): a double
block's attention (image, text[, image prompt]); a single block's one tensor [text; image]; both kinds
of block (text, image).
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from einops import rearrange
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from stepscope.hooks.families.arguments import argument
from stepscope.hooks.families.edges import FluxEdges
from stepscope.hooks.families.family import Family, Pass, Tokens, two_passes
from stepscope.hooks.families.flux_wiring import FluxWiring
from stepscope.hooks.families.joint import (
    BOTH,
    blocks_of,
    in_order,
    one_sequence,
    text_first,
)
from stepscope.hooks.sites import Block


def _blocks(model: nn.Module) -> list[Block]:
    streams = (*BOTH, "image_prompt")
    return [
        *blocks_of("double", model.transformer_blocks, in_order, text_first, streams),
        *blocks_of("single", model.single_transformer_blocks, one_sequence, text_first),
    ]


def tokens_by_ids(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    """From the position ids (token, 3 or 4): 0 in the first place for the noisy image, more for references.

    Pipelines put reference tokens behind those of the noisy image (FluxKontextPipeline.__call__).
    """
    hidden: torch.Tensor = argument(args, kwargs, 0, "hidden_states")
    ids: torch.Tensor = kwargs["img_ids"]
    reference, grid = _told_by(ids)
    context: torch.Tensor = argument(args, kwargs, 1, "encoder_hidden_states")
    return Tokens(hidden.shape[1] - reference, reference, grid, context.shape[1])


_TOLD: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _told_by(ids: torch.Tensor) -> tuple[int, tuple[int, int]]:
    """The number of reference tokens, and the grid of the others.

    Pipelines give every pass of a call the same ids. To read them from a GPU is to wait until it has done
    all that it was asked for, so that it is idle until it is asked for more: they are read once.
    """
    version = None if ids.is_inference() else ids._version  # which inference tensors do not count
    told = _TOLD.get(ids)
    if told is None or told[0] is None or told[0] != version:
        rows = ids if ids.ndim == 2 else ids[0]
        reference = int((rows[:, 0] != 0).sum())
        of_image = rows[: len(rows) - reference]
        grid = int(of_image[:, 1].max()) + 1, int(of_image[:, 2].max()) + 1
        told = _TOLD[ids] = version, (reference, grid)
    return told[1]


def unpacked(packed: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """FLUX packs 2 x 2 latents into a token, channel first (FluxPipeline._pack_latents)."""
    y, x = tokens.grid
    pattern = "... (y x) (channel p q) -> ... channel (y p) (x q)"
    return rearrange(packed, pattern, y=y, x=x, p=2, q=2)


def _guided(seen: Pass) -> bool:
    """True CFG (FluxPipeline.__call__)."""
    return (seen.arguments.get("true_cfg_scale") or 1) > 1


in_turn = two_passes(_guided)


_PIPELINES = (
    "FluxPipeline",
    "FluxImg2ImgPipeline",
    "FluxInpaintPipeline",
    "FluxControlPipeline",
    "FluxControlImg2ImgPipeline",
    "FluxControlInpaintPipeline",
    "FluxControlNetPipeline",
    "FluxControlNetImg2ImgPipeline",
    "FluxControlNetInpaintPipeline",
    "FluxFillPipeline",
    "FluxKontextPipeline",
    "FluxKontextInpaintPipeline",
)
_ROWS_OF_IMAGES = (
    "it denoises the images of a whole grid as one sequence, so that no image has tokens of its own"
)

FLUX = Family(
    "FLUX",
    FluxTransformer2DModel,
    _blocks,
    tokens_by_ids,
    unpacked,
    pipelines=dict.fromkeys(_PIPELINES, in_turn),
    refused={
        "VisualClozePipeline": _ROWS_OF_IMAGES,
        "VisualClozeGenerationPipeline": _ROWS_OF_IMAGES,
    },
    text_encoder="text_encoder_2",
    thousandths=True,
    adds_residuals=True,
    edges=FluxEdges,
    wiring=FluxWiring,
)
FLUX_CONTROLNET = Family(
    "FLUX ControlNet",
    FluxControlNetModel,
    _blocks,
    tokens_by_ids,
    unpacked,
    text_encoder="text_encoder_2",
)
