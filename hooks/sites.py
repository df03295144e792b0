"""Names for the places in a denoiser that can be read: `double.07.attention.image`."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    FluxControlNetModel,
    FluxTransformer2DModel,
    UNet2DConditionModel,
)
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from hooks.errors import StepscopeError, UnsupportedPipelineError, nearest

Read = Callable[[Any, int], tuple[torch.Tensor, ...]]
"""From a module's output and the number of image tokens to its streams, each (batch, token, channel)."""


@dataclass(frozen=True)
class Site:
    """One module whose output holds one or two streams of a quantity (attention or residual)."""

    quantity: str
    streams: tuple[str, ...]
    module: nn.Module
    read: Read


@dataclass(frozen=True)
class Block:
    """A transformer block of the denoiser: its name, kind and index within the kind, and its sites."""

    name: str
    kind: str
    index: int
    module: nn.Module
    sites: tuple[Site, ...]

    def site_names(self) -> Iterator[str]:
        """`<block>.<quantity>.<stream>` for every stream that the block has."""
        for site in self.sites:
            for stream in site.streams:
                yield f"{self.name}.{site.quantity}.{stream}"


# How diffusers' modules return their streams (models/transformers/transformer_flux.py, 0.42):
# a double block's attention (image, text[, ip]); a single block's one tensor [text; image];
# both kinds of block (text, image).
def _double_attention(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return output[0], output[1]


def _single_attention(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    # One call for both views: two slices take as long as a norm.
    text, image = torch.split_with_sizes(output, (output.shape[1] - image_tokens, image_tokens), 1)
    return image, text


def _block_output(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return output[1], output[0]


def _tensor(output: Any, image_tokens: int) -> tuple[torch.Tensor, ...]:
    return (output,)


def _flux_blocks(model: nn.Module) -> list[Block]:
    both = ("image", "text")
    blocks = []
    for kind, modules, attention in (
        ("double", model.transformer_blocks, _double_attention),
        ("single", model.single_transformer_blocks, _single_attention),
    ):
        for index, module in enumerate(modules):  # pyright: ignore[reportArgumentType]
            sites = (
                Site("attention", both, module.attn, attention),
                Site("residual", both, module, _block_output),
            )
            blocks.append(Block(f"{kind}.{index:02d}", kind, index, module, sites))
    return blocks


def _unet_blocks(model: nn.Module) -> list[Block]:
    found: dict[str, list[tuple[str, nn.Module]]] = {"down": [], "mid": [], "up": []}
    for path, module in model.named_modules():
        if isinstance(module, BasicTransformerBlock):
            kind = path.split("_block")[0]
            where = ".".join(f"{int(n):02d}" for n in re.findall(r"\d+", path))
            found[kind].append((f"{kind}.{where}", module))
    blocks = []
    for kind, named in found.items():  # order of execution; named_modules has the middle block last
        for index, (name, module) in enumerate(named):
            sites = [Site("attention", ("image",), module.attn1, _tensor)]  # pyright: ignore[reportArgumentType]
            if module.attn2 is not None:
                sites.append(Site("attention", ("text",), module.attn2, _tensor))  # pyright: ignore[reportArgumentType]
            sites.append(Site("residual", ("image",), module, _tensor))
            blocks.append(Block(name, kind, index, module, tuple(sites)))
    return blocks


FAMILIES: dict[type[nn.Module], Callable[[nn.Module], list[Block]]] = {
    FluxTransformer2DModel: _flux_blocks,
    FluxControlNetModel: _flux_blocks,
    UNet2DConditionModel: _unet_blocks,
    ControlNetModel: _unet_blocks,
}
"""Denoisers (and adapters' networks) whose blocks have names."""


def blocks_of(model: nn.Module) -> list[Block]:
    """The transformer blocks of a denoiser or a ControlNet, in order of execution.

    Raises UnsupportedPipelineError for a class that is not in `FAMILIES`.
    """
    for family, blocks in FAMILIES.items():
        if isinstance(model, family):
            return blocks(model)
    known = ", ".join(family.__name__ for family in FAMILIES)
    raise UnsupportedPipelineError(
        f"cannot record a {type(model).__name__}: blocks are known for {known}"
    )


def select(patterns: Iterable[str], blocks: Iterable[Block]) -> list[str]:
    """Site names that match any of the shell-style patterns, in order of execution.

    Raises StepscopeError for a pattern that matches nothing, with the closest names.
    """
    names = [name for block in blocks for name in block.site_names()]
    chosen: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise StepscopeError(f"no site matches {pattern!r}; {nearest(pattern, names)}")
        chosen.update(matched)
    return [name for name in names if name in chosen]
