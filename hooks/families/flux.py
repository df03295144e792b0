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

from stepscope.hooks.families.arguments import argument
from stepscope.hooks.families.edges import FluxEdges
from stepscope.hooks.families.family import Family, Pass, Tokens
from stepscope.hooks.families.flux_wiring import FluxWiring
from stepscope.hooks.sites import Block, Site


def _double_attention(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return output


def _single_attention(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    # One call for both views: two slices take as long as a norm.
    text, image = torch.split_with_sizes(output, (output.shape[1] - image_tokens, image_tokens), 1)
    return image, text


def _block_output(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return output[1], output[0]


def _blocks(model: nn.Module) -> list[Block]:
    both = ("image", "text")
    blocks = []
    for kind, modules, streams, attention in (
        ("double", model.transformer_blocks, (*both, "image_prompt"), _double_attention),
        ("single", model.single_transformer_blocks, both, _single_attention),
    ):
        for index, module in enumerate(modules):  # pyright: ignore[reportArgumentType]
            sites = (
                Site("attention", streams, module.attn, attention),
                Site("residual", both, module, _block_output),
            )
            blocks.append(Block(f"{kind}.{index:02d}", kind, index, module, sites))
    return blocks


def _tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    """From the position ids (token, 3): 0 in the first place for the noisy image, more for references.

    Pipelines put reference tokens behind those of the noisy image (FluxKontextPipeline.__call__).
    """
    hidden: torch.Tensor = argument(args, kwargs, 0, "hidden_states")
    ids: torch.Tensor = kwargs["img_ids"]
    ids = ids if ids.ndim == 2 else ids[0]
    reference = int((ids[:, 0] != 0).sum())
    image = hidden.shape[1] - reference
    grid = int(ids[:image, 1].max()) + 1, int(ids[:image, 2].max()) + 1
    context: torch.Tensor = argument(args, kwargs, 1, "encoder_hidden_states")
    return Tokens(image, reference, grid, context.shape[1])


def _unpack(packed: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    """FLUX packs 2 x 2 latents into a token, channel first (FluxPipeline._pack_latents)."""
    y, x = tokens.grid
    pattern = "... (y x) (channel p q) -> ... channel (y p) (x q)"
    return rearrange(packed, pattern, y=y, x=x, p=2, q=2)


def in_turn(seen: Pass) -> tuple[str, ...] | None:
    """The prompt's pass, then with true CFG the negative prompt's (FluxPipeline.__call__)."""
    if seen.parts != 1:
        return None
    if seen.nth == 1 and (seen.arguments.get("true_cfg_scale") or 1) > 1:
        return ("negative",)
    return ("positive",) if seen.nth == 0 else None


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
    _tokens,
    _unpack,
    pipelines=dict.fromkeys(_PIPELINES, in_turn),
    refused={
        "VisualClozePipeline": _ROWS_OF_IMAGES,
        "VisualClozeGenerationPipeline": _ROWS_OF_IMAGES,
    },
    text_encoder="text_encoder_2",
    adds_residuals=True,
    edges=FluxEdges,
    wiring=FluxWiring,
)
FLUX_CONTROLNET = Family(
    "FLUX ControlNet", FluxControlNetModel, _blocks, _tokens, _unpack, text_encoder="text_encoder_2"
)
