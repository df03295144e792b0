"""How blocks of joint attention are wired, seen by plain hooks apart from the recorder's."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.sites import Block
from stepscope.hooks.tally import Tally

Streams = torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]
"""What is handed on between blocks: (image, text), or one sequence [text; image]."""


class JointWiring:
    """A block's output is the next's input; a double block's streams have projections of their own.

    As SD3Transformer2DModel, ChromaTransformer2DModel, QwenImageTransformer2DModel and
    Flux2Transformer2DModel do it. chain: comparisons between blocks. streams: within them.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[Block]) -> None:
        self.network = network
        self.blocks = [block for block in blocks if block.kind in ("double", "single")]
        self.chain, self.streams = Tally(), Tally()
        self._expected: Streams | None = None

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        handles: list[RemovableHandle] = [
            self.network.register_forward_pre_hook(lambda module, args: self._open())
        ]
        for block in self.blocks:
            handles += [
                block.module.register_forward_pre_hook(self._before, with_kwargs=True),
                block.module.register_forward_hook(self._after),
            ]
            if block.kind == "double":
                handles += self._projections(block.module)
        last: Any = self.network.norm_out
        return [*handles, last.register_forward_pre_hook(self._close)]

    def _open(self) -> None:
        self._expected = None

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        image, text = kwargs["hidden_states"], kwargs.get("encoder_hidden_states")
        if isinstance(self._expected, torch.Tensor):
            self.chain.compare(image, self._expected)
        elif self._expected is not None:
            made, of_text = self._expected
            if text is None and of_text is not None:  # the first block on one sequence
                self.streams.compare(image, torch.cat([of_text, made], dim=1))
            else:
                self.chain.compare(image, made)
                if text is not None:
                    self.chain.compare(text, of_text)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._expected = (output[1], output[0]) if isinstance(output, tuple) else output

    def _projections(self, module: Any) -> list[RemovableHandle]:
        """The attention's outputs are those of the image's and the text's own projections.

        Perturbed attention projects the rows that it perturbs behind the others, by a run of their own.
        """
        layers = {"image": module.attn.to_out[0], "text": getattr(module.attn, "to_add_out", None)}
        layers = {name: layer for name, layer in layers.items() if layer is not None}
        projected: dict[str, list[torch.Tensor]] = {name: [] for name in layers}

        def keep(name: str) -> Callable[..., None]:
            return lambda _, args, output: projected[name].append(output)

        def compare(_: nn.Module, args: Any, output: Any) -> None:
            # a last block's text has no projection; what is handed on without its own is none of it
            for (name, parts), stream in zip(projected.items(), output, strict=False):
                self.streams.compare(stream, torch.cat(parts) if parts else None)
                projected[name] = []

        handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
        return [*handles, module.attn.register_forward_hook(compare)]

    def _close(self, module: nn.Module, args: Any) -> None:
        made = self._expected
        if isinstance(made, torch.Tensor):
            self.streams.compare(args[0], made[:, -args[0].shape[1] :])
        elif made is not None:
            self.chain.compare(args[0], made[0])
