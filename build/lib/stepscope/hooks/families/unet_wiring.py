"""How a U-Net's transformer blocks are wired, seen by plain hooks apart from the recorder's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.sites import Block, Site
from stepscope.hooks.tally import Tally


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
        for site in block.sites:
            if site.split is not None and hasattr(
                getattr(module.attn2, "processor", None), "to_k_ip"
            ):
                handles += self._text_alone(site)
        return handles

    def _text_alone(self, site: Site) -> list[RemovableHandle]:
        """The text's part of a cross-attention is that of the text's own keys and values."""
        attention: Any = site.module
        made: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Any:
            return lambda _, args, output: made.update({name: output})

        def compare(module: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> None:
            assert site.split is not None
            text = site.split(module, args, kwargs, output)[0]
            query, key, value = (
                made[name].unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                for name in ("to_q", "to_k", "to_v")
            )
            joined = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
            self.streams.compare(
                text, attention.to_out[0](joined) / attention.rescale_output_factor
            )

        parts = [
            getattr(attention, name).register_forward_hook(keep(name))
            for name in ("to_q", "to_k", "to_v")
        ]
        return [*parts, attention.register_forward_hook(compare, with_kwargs=True)]
