"""Read off diffusers' source, apart from `hooks`: where each family's modules have which stream."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from tests.cases import Case
from tests.family_models import words

IMAGE_TOKENS, FILLED = 24, 32  # of all cases; Z-Image fills up to a multiple of 32


class At(NamedTuple):
    """A module, and which part of its output a stream is; or of its first argument, if it is `given`."""

    module: nn.Module
    part: Callable[[Any], torch.Tensor]
    given: bool = False


Modules = dict[tuple[str, str, str], At]
"""(block, quantity, stream) -> where it is."""


def double(found: Modules, name: str, block: Any) -> None:
    found[name, "attention", "image"] = At(block.attn, lambda out: out[0])
    found[name, "attention", "text"] = At(block.attn, lambda out: out[1])
    found[name, "residual", "image"] = At(block, lambda out: out[1])
    found[name, "residual", "text"] = At(block, lambda out: out[0])


def sequence(found: Modules, name: str, quantity: str, at: At) -> None:
    """[text; image]"""
    module, part, given = at
    found[name, quantity, "image"] = At(module, lambda out: part(out)[:, -IMAGE_TOKENS:], given)
    found[name, quantity, "text"] = At(module, lambda out: part(out)[:, :-IMAGE_TOKENS], given)


def sd3(network: Any) -> Modules:
    found: Modules = {}
    for i, block in enumerate(network.transformer_blocks):
        double(found, f"double.{i:02d}", block)
        if block.attn2 is not None:
            found[f"dual.{i:02d}", "attention", "image"] = At(block.attn2, lambda out: out)
    last = f"double.{len(network.transformer_blocks) - 1:02d}"
    del found[last, "attention", "text"], found[last, "residual", "text"]
    return found


def chroma(network: Any) -> Modules:
    found: Modules = {}
    for i, block in enumerate(network.transformer_blocks):
        double(found, f"double.{i:02d}", block)
    for i, block in enumerate(network.single_transformer_blocks):
        sequence(found, f"single.{i:02d}", "attention", At(block.attn, lambda out: out))
        sequence(found, f"single.{i:02d}", "residual", At(block, lambda out: out))
    return found


def qwen(network: Any) -> Modules:
    found: Modules = {}
    for i, block in enumerate(network.transformer_blocks):
        double(found, f"double.{i:02d}", block)
    return found


def flux2(network: Any) -> Modules:
    found = qwen(network)
    for i, block in enumerate(network.single_transformer_blocks):
        width = block.attn.heads * block.attn.head_dim
        of_attention = At(block.attn.to_out, lambda given, w=width: given[..., :w], given=True)
        sequence(found, f"single.{i:02d}", "attention", of_attention)
        sequence(found, f"single.{i:02d}", "residual", At(block, lambda out: out))
    return found


def z_image(network: Any) -> Modules:
    """[image, filling; text, filling]"""
    found: Modules = {}
    for i, block in enumerate(network.noise_refiner):
        for quantity, module in (("attention", block.attention), ("residual", block)):
            name = f"noise.{i:02d}"
            found[name, quantity, "image"] = At(module, lambda out: out[:, :IMAGE_TOKENS])
    for i, block in enumerate(network.context_refiner):
        for quantity, module in (("attention", block.attention), ("residual", block)):
            found[f"context.{i:02d}", quantity, "text"] = At(module, lambda out: out)
    for i, block in enumerate(network.layers):
        for quantity, module in (("attention", block.attention), ("residual", block)):
            name = f"single.{i:02d}"
            found[name, quantity, "image"] = At(module, lambda out: out[:, :IMAGE_TOKENS])
            found[name, quantity, "text"] = At(module, lambda out: out[:, FILLED:])
    return found


MODULES: dict[str, Callable[[Any], Modules]] = {
    "sd3": sd3,
    "chroma": chroma,
    "qwen": qwen,
    "flux2": flux2,
    "klein": flux2,
    "z_image": z_image,
}


def pads(case: Case) -> bool:
    """Whether padding is told apart from text."""
    return case.is_transformer and case.pipeline != "sd3"


def length(text: str) -> int:
    """Tokens of a text without padding."""
    return len(words()(text).input_ids)
