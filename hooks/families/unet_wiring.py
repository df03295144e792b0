"""How a U-Net's transformer blocks are wired, seen by plain hooks apart from the recorder's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from hooks.sites import Block
from hooks.tally import Tally


class UnetWiring:
    """BasicTransformerBlock sums h + attn1(norm1 h), then + attn2(norm2 .), before norm3.

    chain: empty, since other layers stand between blocks. streams: comparisons within them.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[Block]) -> None:
        self.blocks = blocks
        self.chain, self.streams = Tally(), Tally()

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        return [handle for block in self.blocks for handle in self._block(block)]

    def _block(self, block: Block) -> list[RemovableHandle]:
        module: Any = block.module
        running: list[torch.Tensor] = []

        def start(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            running[:] = [args[0] if args else kwargs["hidden_states"]]

        def add(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            running[:] = [output + running[0]]

        def compare(_: nn.Module, args: Any) -> None:
            self.streams.compare(args[0], running[0])

        handles = [
            module.register_forward_pre_hook(start, with_kwargs=True),
            module.attn1.register_forward_hook(add),
            module.norm3.register_forward_pre_hook(compare),
        ]
        if module.attn2 is not None:
            handles.append(module.norm2.register_forward_pre_hook(compare))
            handles.append(module.attn2.register_forward_hook(add))
        return handles
