"""Z-Image: refiners of the image and of the text apart, then blocks on one sequence of both.

Read from models/transformers/transformer_z_image.py (0.42). Images and texts come as lists, a tensor for
each row. Both are filled up to a multiple of 32 tokens, and the sequence is [image, its filling; text,
its filling], up to the longest row of the batch. The image's filling is in no stream; the text's is
`padding`. The model gives the negative of the velocity, which pipelines turn before the scheduler's step.
"""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from torch import nn

from stepscope.hooks.families.arguments import argument
from stepscope.hooks.families.family import Family, Pass, Tokens
from stepscope.hooks.families.z_image_wiring import ZImageWiring
from stepscope.hooks.sites import Block, Site


def filled(tokens: int) -> int:
    """How many tokens so many are filled up to."""
    return tokens + -tokens % SEQ_MULTI_OF


def _image(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return (output[:, :image_tokens],)


def _text(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return (output,)


def _sequence(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return output[:, :image_tokens], output[:, filled(image_tokens) :]


def _blocks(model: nn.Module) -> list[Block]:
    found: list[Block] = []
    for kind, modules, streams, read in (
        ("noise", model.noise_refiner, ("image",), _image),
        ("context", model.context_refiner, ("text",), _text),
        ("single", model.layers, ("image", "text"), _sequence),
    ):
        for index, module in enumerate(modules):  # pyright: ignore[reportArgumentType]
            sites = (
                Site("attention", streams, module.attention, read),
                Site("residual", streams, module, read),
            )
            found.append(Block(f"{kind}.{index:02d}", kind, index, module, sites))
    return found


def _tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tokens:
    latents: list[torch.Tensor] = argument(args, kwargs, 0, "x")
    texts: list[torch.Tensor] = argument(args, kwargs, 2, "cap_feats")
    patch = argument(args, kwargs, 7, "patch_size") or 2
    y, x = latents[0].shape[-2] // patch, latents[0].shape[-1] // patch
    lengths = tuple(len(text) for text in texts)
    return Tokens(y * x, 0, (y, x), filled(max(lengths)), lengths)


def _unpacked(latents: torch.Tensor, tokens: Tokens) -> torch.Tensor:
    return latents


def _velocity(output: Any) -> torch.Tensor:
    rows: list[torch.Tensor] = output[0] if isinstance(output, tuple) else output.sample
    return -torch.stack(rows).squeeze(2)


def guided(seen: Pass) -> tuple[str, ...] | None:
    """Classifier-free guidance in one batch, the prompt first; none where it is truncated."""
    known = {1: ("positive",), 2: ("positive", "negative")}
    return known.get(seen.parts) if seen.nth == 0 else None


_CONTROL = "what its ControlNet adds between the blocks of Z-Image is not read"

Z_IMAGE = Family(
    "Z-Image",
    ZImageTransformer2DModel,
    _blocks,
    _tokens,
    _unpacked,
    pipelines=dict.fromkeys(
        ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"), guided
    ),
    refused={
        "ZImageControlNetPipeline": _CONTROL,
        "ZImageControlNetInpaintPipeline": _CONTROL,
        "ZImageOmniPipeline": "it puts texts, images and what a vision model makes of them into one "
        "sequence whose order differs from row to row",
    },
    masked=True,
    output=_velocity,
    wiring=ZImageWiring,
)
