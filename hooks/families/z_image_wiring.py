"""How Z-Image's blocks are wired, seen by plain hooks apart from the recorder's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.sites import Block
from stepscope.hooks.tally import Tally


class ZImageWiring:
    """Blocks on one sequence get [image; text] of the refiners; a block's output is the next's input.

    ZImageTransformer2DModel._build_unified_sequence. chain: comparisons between blocks of a kind.
    streams: of the sequence with what the refiners gave, row by row.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[Block]) -> None:
        self.network, self.blocks = network, blocks
        self.chain, self.streams = Tally(), Tally()
        self._made: dict[str, torch.Tensor] = {}
        self._texts: list[int] = []

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        handles: list[RemovableHandle] = [
            self.network.register_forward_pre_hook(self._open, with_kwargs=True)
        ]
        for block in self.blocks:
            handles += self._block(block)
        return handles

    def _open(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        texts = args[2] if len(args) > 2 else kwargs["cap_feats"]
        self._texts, self._made = [len(text) for text in texts], {}

    def _block(self, block: Block) -> list[RemovableHandle]:
        def before(_: nn.Module, args: Any) -> None:
            if block.kind in self._made:
                self.chain.compare(args[0], self._made[block.kind])
            elif block.kind == "single":
                self._compare_rows(args[0])

        def after(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            self._made[block.kind] = output

        return [
            block.module.register_forward_pre_hook(before),
            block.module.register_forward_hook(after),
        ]

    def _compare_rows(self, sequence: torch.Tensor) -> None:
        if not {"noise", "context"} <= {*self._made}:  # a model without refiners
            return
        image, text = self._made["noise"], self._made["context"]
        for row, length in enumerate(self._texts):
            count = image.shape[1]
            self.streams.compare(sequence[row, :count], image[row])
            self.streams.compare(sequence[row, count : count + length], text[row, :length])
