"""What IP-Adapters add: to a U-Net's cross-attentions, and to the image tokens of FLUX's double blocks.

Each processor holds several adapters, and what they add is the sum over them of scale times attention to
their own tokens. Where one of them is on, all of it is that one's. Where several are, an attention is run
again for each, with the others' scales at 0: the sum is linear in the scales.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.clock import Clock
from stepscope.hooks.families import blocks_of
from stepscope.hooks.injections.injection import Injection, over
from stepscope.hooks.injections.meter import Meter, lay
from stepscope.hooks.injections.residuals import observed
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import Observer
from stepscope.hooks.sites import Block, edited_streams

Kwargs = Mapping[str, Any]


def in_cross_attentions(denoiser: nn.Module, network: nn.Module | None) -> "CrossAttentions | None":
    """Of a U-Net with an IP-Adapter."""
    found = attentions_of(denoiser, UNet2DConditionModel)
    return CrossAttentions(denoiser, found) if found else None


def after_double_blocks(denoiser: nn.Module, network: nn.Module | None) -> "DoubleBlocks | None":
    """Of a FLUX transformer with an IP-Adapter."""
    found = attentions_of(denoiser, FluxTransformer2DModel)
    return DoubleBlocks(found) if found else None


class CrossAttentions:
    """The image prompt's part of a cross-attention's output, over the text's part; both are projected.

    With one adapter on, these are norms that the observer has already (`text_and_image_prompt`).
    """

    def __init__(self, denoiser: nn.Module, attentions: Mapping[str, Any]) -> None:
        self._attentions = attentions
        self._blocks = [block.name for block in blocks_of(denoiser)]
        self._count = len(next(iter(attentions.values())).processor.to_k_ip)
        self.injections = _places(attentions, self._count)
        self._meter = Meter(len(self.injections))
        self._alone: dict[Place, set[int]] = {}

    def reset(self) -> None:
        self._meter.reset()
        self._alone.clear()

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        def hook(first: int) -> Callable[..., None]:
            def see(module: Any, args: Any, kwargs: dict[str, Any], output: torch.Tensor) -> None:
                if not self._meter.open:
                    return
                slots = range(first, len(self.injections), len(self._attentions))
                scales: list[Any] = module.processor.scale
                on = [i for i, scale in enumerate(scales) if not _is_zero(scale)]
                for i, slot in enumerate(slots):
                    if i not in on:
                        self._meter.leave_blank(slot)
                    elif len(on) == 1:
                        self._alone.setdefault((clock.step, clock.nth), set()).add(slot)
                    elif edited_streams(output) is None:  # an edited sum is no adapter's own
                        rest = run_again(module, args, kwargs, lambda n, i=i: n != i)
                        self._meter.put(slot, output - rest)

            return see

        handles = self._meter.attach(clock, denoiser)
        for first, attention in enumerate(self._attentions.values()):
            handles.append(lay(attention, hook(first)))
        return handles

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        norms, found = seen.norms.read(), {}
        rows = [self._blocks.index(one.block) for one in self.injections]
        for place, added in self._meter.read().items():
            text, image = (
                observed(seen, norms[place], "attention", stream)[rows]
                for stream in ("text", "image_prompt")
            )
            alone = sorted(self._alone.get(place, ()))
            added[alone] = image[alone]
            found[place] = over(added, text)
        return found


class DoubleBlocks:
    """The third output of a double block's attention, over the image tokens that it is added to.

    FluxTransformerBlock.forward adds it last, ungated. With several adapters on, an edit of
    `attention.image_prompt` is not seen: each is as its own attention made it.
    """

    def __init__(self, attentions: Mapping[str, Any]) -> None:
        self._attentions = attentions
        self._count = len(next(iter(attentions.values())).processor.to_k_ip)
        self.injections = _places(attentions, self._count)
        self._meter = Meter(len(self.injections) + len(attentions))

    def reset(self) -> None:
        self._meter.reset()

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        handles = self._meter.attach(clock, denoiser)
        modules = {block.name: block.module for block in blocks_of(denoiser)}
        for first, (name, attention) in enumerate(self._attentions.items()):
            given: list[torch.Tensor] = []
            handles.append(lay(attention, self._attention(first, given)))
            handles.append(lay(modules[name], self._block(first, given)))
        return handles

    def _attention(self, first: int, given: list[torch.Tensor]) -> Callable[..., None]:
        slots = range(first, len(self.injections), len(self._attentions))

        def see(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if not self._meter.open or len(output) < 3:
                return
            given[:] = [output[2]]
            on = [i for i, scale in enumerate(module.processor.scale) if not _is_zero(scale)]
            for i, slot in enumerate(slots):
                if i not in on:
                    self._meter.leave_blank(slot)
                elif len(on) == 1:
                    self._meter.put(slot, output[2])
                else:
                    alone = run_again(module, args, kwargs, lambda n, i=i: n == i)
                    self._meter.put(slot, alone[2])

        return see

    def _block(self, first: int, given: list[torch.Tensor]) -> Callable[..., None]:
        def see(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if self._meter.open and given:
                self._meter.put(len(self.injections) + first, output[1] - given.pop())

        return see

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        count = len(self.injections)
        return {
            place: over(norms[:count], np.tile(norms[count:], (self._count, 1)))
            for place, norms in self._meter.read().items()
        }


def attentions_of(denoiser: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
    """Attentions that hold IP-Adapters, by the name of their block, in order of execution."""
    blocks: Sequence[Block] = blocks_of(denoiser) if isinstance(denoiser, kind) else ()
    return {
        block.name: site.module
        for block in blocks
        for site in block.sites
        if hasattr(getattr(site.module, "processor", None), "to_k_ip")
    }


def _places(attentions: Mapping[str, Any], count: int) -> list[Injection]:
    return [
        Injection(f"ip_adapter:{i}", block, "image") for i in range(count) for block in attentions
    ]


def _is_zero(scale: Any) -> bool:
    """Of one adapter: a number, or one for each of its masked images."""
    return not any(scale) if isinstance(scale, list | tuple) else not scale


def run_again(module: Any, args: Any, kwargs: Kwargs, keep: Callable[[int], bool]) -> Any:
    """What the attention gives with the scales of some adapters alone, the others' at 0."""
    processor = module.processor
    scale = processor.scale
    processor.scale = [one if keep(i) else 0.0 for i, one in enumerate(scale)]
    try:
        return module.forward(*args, **kwargs)
    finally:
        processor.scale = scale
