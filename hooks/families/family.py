"""Everything that hooks must know of a family of denoisers, in one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.families.edges import Edges
from stepscope.hooks.sites import Block
from stepscope.hooks.tally import Tally


class Tokens(NamedTuple):
    """The tokens of one forward pass.

    image: tokens of the noisy image, the first of the image stream. reference: tokens that follow
    them (FLUX Kontext's reference images). grid: (token_y, token_x) of the noisy image's tokens; of
    a U-Net, of its finest level. context: tokens of the text, padding included.
    """

    image: int
    reference: int
    grid: tuple[int, int]
    context: int


class Pass(NamedTuple):
    """What is known of a forward pass beside its tokens.

    pipe: the pipeline, as it stands at this step: a callback may have switched its guidance off.
    arguments: those of the pipeline's call. nth: which pass of the step it is, from 0. parts: how
    many times the batch of the latents its rows are.
    """

    pipe: Any
    arguments: Mapping[str, Any]
    nth: int
    parts: int


Branches = Callable[[Pass], tuple[str, ...] | None]
"""From a pass to the branch of each part of its rows, in order; None for a pass that is not known."""


class Wiring(Protocol):
    """Plain hooks on a network that compare what is handed on between and within its blocks."""

    chain: Tally
    streams: Tally

    def attach(self) -> list[RemovableHandle]: ...


@dataclass(frozen=True)
class Family:
    """A family of denoisers (or of the networks of adapters).

    model: its class. blocks: its transformer blocks, in order of execution.
    tokens: of a forward pass, from its positional and named arguments.
    unpack: latents as the scheduler has them, (..., token, channel) or (..., channel, y, x), to
        (..., channel, y, x).
    pipelines: name of a diffusers class that has a denoising loop -> the branches of its passes. A
        loop that is not here is refused: nothing tells what its passes are.
    refused: name -> why a loop that is known cannot be recorded.
    context: what the second stream of a block is, `text` or `identity`.
    text_encoder: the pipeline's component whose tokens are the text stream; None where the text is
        only read by cross-attention, so that no token of the stream is padding.
    adds_residuals: a ControlNet adds to this model's image tokens between blocks.
    edges: the places at which an adapter's network adds to this model, from both networks; None if
        none does.
    wiring: plain hooks that `verify` compares what blocks hand on with what they get by.
    """

    name: str
    model: type[nn.Module]
    blocks: Callable[[nn.Module], list[Block]]
    tokens: Callable[[tuple[Any, ...], Mapping[str, Any]], Tokens]
    unpack: Callable[[torch.Tensor, Tokens], torch.Tensor]
    pipelines: Mapping[str, Branches] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    context: str = "text"
    text_encoder: str | None = None
    adds_residuals: bool = False
    edges: Callable[[nn.Module, nn.Module], Edges] | None = None
    wiring: Callable[[nn.Module, list[Block]], "Wiring"] | None = None
