"""How FLUX's blocks are wired, seen by plain hooks apart from the recorder's."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.sites import Block
from stepscope.hooks.tally import Tally


class FluxWiring:
    """FluxTransformer2DModel.forward: a block's output, plus a ControlNet's residual, is the next's input.

    chain: comparisons between blocks. streams: within them.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[Block]) -> None:
        self.network, self.blocks = network, blocks
        self.chain, self.streams = Tally(), Tally()
        self._expected: tuple[torch.Tensor, torch.Tensor] | None = None
        self._residuals: list[torch.Tensor | None] = []

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        handles: list[RemovableHandle] = [
            self.network.register_forward_pre_hook(self._open, with_kwargs=True)
        ]
        for index, block in enumerate(self.blocks):
            handles += self._block(index, block)
        last: Any = self.network.norm_out
        return [*handles, last.register_forward_pre_hook(self._close)]

    def add(self, image: torch.Tensor) -> None:
        """An adapter of its own adds this, before the next block or in a hook of the last one."""
        if self._expected is not None and self._expected[0].shape == image.shape:
            self._expected = self._expected[0] + image, self._expected[1]

    def _open(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._expected = None
        self._residuals = []
        given = (kwargs.get(f"controlnet_{kind}block_samples") for kind in ("", "single_"))
        for kind, samples in zip(("double", "single"), given, strict=True):
            count = sum(block.kind == kind for block in self.blocks)
            every = math.ceil(count / len(samples)) if samples else 1
            self._residuals += [samples[i // every] if samples else None for i in range(count)]

    def _block(self, index: int, block: Block) -> list[RemovableHandle]:
        module: Any = block.module

        def before(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if self._expected is not None:
                self.chain.compare(kwargs["hidden_states"], self._expected[0])
                self.chain.compare(kwargs["encoder_hidden_states"], self._expected[1])
            self._expected = kwargs["hidden_states"], kwargs["encoder_hidden_states"]

        def after(_: nn.Module, args: Any, output: Any) -> None:
            text, image = output
            residual = self._residuals[index]
            self._expected = (image if residual is None else image + residual), text

        handles = [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]
        return handles + (self._double(module) if block.kind == "double" else self._single(module))

    def _double(self, module: Any) -> list[RemovableHandle]:
        """The attention's outputs are those of the image's and the text's own projections."""
        projected: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda _, args, output: projected.update({name: output})

        def compare(_: nn.Module, args: Any, output: Any) -> None:
            # taken away, so that an output handed on without its projections is none of them
            for name, stream in zip(("image", "text"), output, strict=False):
                self.streams.compare(stream, projected.pop(name, None))

        return [
            module.attn.to_out[0].register_forward_hook(keep("image")),
            module.attn.to_add_out.register_forward_hook(keep("text")),
            module.attn.register_forward_hook(compare),
        ]

    def _single(self, module: Any) -> list[RemovableHandle]:
        """The one sequence that the attention sees is [text; image]."""

        def before_norm(_: nn.Module, args: Any) -> None:
            assert self._expected is not None
            image, text = self._expected
            self.streams.compare(args[0], torch.cat([text, image], dim=1))

        return [module.norm.register_forward_pre_hook(before_norm)]

    def _close(self, module: nn.Module, args: Any) -> None:
        assert self._expected is not None
        self.chain.compare(args[0], self._expected[0])
