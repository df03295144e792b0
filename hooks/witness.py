"""Plain hooks that watch how a network's blocks are wired, independently of the recorder's.

A witness never keeps more than one block's tensors, so it can watch full-size models.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import nn
from torch.utils.hooks import RemovableHandle

from hooks.families import blocks_of
from hooks.sites import Block, Site


@dataclass
class Tally:
    """The largest deviation seen for one claim, relative to the largest entry, and how often looked."""

    worst: float = 0.0
    count: int = 0

    def compare(self, seen: torch.Tensor, expected: torch.Tensor) -> None:
        self.count += 1
        if seen.shape != expected.shape:
            self.worst = math.inf
            return
        scale = expected.abs().max().float().clamp_min(1e-12)
        self.worst = max(self.worst, float((seen.float() - expected.float()).abs().max() / scale))


class Witness:
    """Watches a denoiser: `chain` between its blocks, `streams` within them, and `norms` in float64.

    norms: (quantity, block, stream) -> root mean square over tokens of every sample, of the first
    forward pass alone.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, self.blocks = network, blocks_of(network)
        self.chain, self.streams = Tally(), Tally()
        self.norms: dict[tuple[str, int, str], torch.Tensor] = {}
        self._expected: tuple[torch.Tensor, torch.Tensor] | None = None
        self._residuals: list[torch.Tensor | None] = []
        self._image_tokens = 0

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        handles: list[RemovableHandle] = []
        flux = isinstance(self.network, FluxTransformer2DModel)
        if flux:
            handles.append(self.network.register_forward_pre_hook(self._open, with_kwargs=True))
        for index, block in enumerate(self.blocks):
            handles += [
                site.module.register_forward_hook(self._norm(index, site)) for site in block.sites
            ]
            handles += self._flux(index, block) if flux else self._unet(block)
        if flux:
            last: Any = self.network.norm_out
            handles.append(last.register_forward_pre_hook(self._close))
        return handles

    def _norm(self, index: int, site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            for name, stream in zip(
                site.streams, site.read(output, self._image_tokens), strict=False
            ):
                if name == "text" and isinstance(self.network, FluxTransformer2DModel):
                    continue
                where = (site.quantity, index, name)
                if where not in self.norms:
                    self.norms[where] = stream.double().square().sum(-1).mean(-1).sqrt().cpu()

        return hook

    # FLUX: FluxTransformer2DModel.forward adds the ControlNet's residuals between blocks.

    def _open(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._image_tokens = kwargs["hidden_states"].shape[1]
        self._expected = None
        self._residuals = []
        given = (kwargs.get(f"controlnet_{kind}block_samples") for kind in ("", "single_"))
        for kind, samples in zip(("double", "single"), given, strict=True):
            count = sum(block.kind == kind for block in self.blocks)
            every = math.ceil(count / len(samples)) if samples else 1
            self._residuals += [samples[i // every] if samples else None for i in range(count)]

    def _flux(self, index: int, block: Block) -> list[RemovableHandle]:
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
            self.streams.compare(output[0], projected["image"])
            self.streams.compare(output[1], projected["text"])

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

    # U-Net: BasicTransformerBlock sums h + attn1(norm1 h), then + attn2(norm2 .), before norm3.

    def _unet(self, block: Block) -> list[RemovableHandle]:
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
