"""Everything that hooks must know of a family of denoisers, in one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

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
    a U-Net, of its finest level. context: tokens of the text, padding included. lengths: those that
    are no padding, of each row, where the pass itself tells them. left: the padding stands before the
    text. skipped: names of the blocks that the pass leaves out.
    """

    image: int
    reference: int
    grid: tuple[int, int]
    context: int
    lengths: tuple[int, ...] | None = None
    left: bool = False
    skipped: tuple[str, ...] = ()


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


def two_passes(guided: Callable[[Pass], bool]) -> Branches:
    """The prompt's pass, and in a step that is guided the negative prompt's after it."""

    def in_turn(seen: Pass) -> tuple[str, ...] | None:
        if seen.parts != 1:
            return None
        if seen.nth == 1 and guided(seen):
            return ("negative",)
        return ("positive",) if seen.nth == 0 else None

    return in_turn


class Wiring(Protocol):
    """Plain hooks on a network that compare what is handed on between and within its blocks."""

    chain: Tally
    streams: Tally

    def attach(self) -> list[RemovableHandle]: ...


@runtime_checkable
class AddedTo(Protocol):
    """Wiring that is told what an adapter adds to the image tokens between blocks, when it is made."""

    def add(self, image: torch.Tensor) -> None: ...


def output_of(output: Any) -> torch.Tensor:
    """What most networks return: a tuple or an object that holds one tensor."""
    return output[0] if isinstance(output, tuple) else output.sample


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
    text_encoder: the pipeline's component whose tokens are the text stream, and whose calls tell which
        of them are padding. None where the text is only read by cross-attention, or where its padding
        is not told apart.
    masked: each pass tells which tokens of text are padding: `Tokens.lengths`.
    output: from what the model returned, what the scheduler is given of a pass, (row, ...).
    thousandths: the model is given the scheduler's timesteps as thousandths.
    rescaled: guidance gives each token of its result the norm that the positive branch has there.
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
    masked: bool = False
    output: Callable[[Any], torch.Tensor] = output_of
    thousandths: bool = False
    rescaled: bool = False
    adds_residuals: bool = False
    edges: Callable[[nn.Module, nn.Module], Edges] | None = None
    wiring: Callable[[nn.Module, list[Block]], "Wiring"] | None = None

    @property
    def pads(self) -> bool:
        """Whether padding is told apart from the text that it fills up."""
        return self.context == "text" and (self.masked or self.text_encoder is not None)
