"""What a ControlNet adds: to FLUX's image tokens between blocks, to a U-Net's skip connections."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks import compiled
from stepscope.hooks.clock import Clock
from stepscope.hooks.families import blocks_of, family_of
from stepscope.hooks.families.edges import UnetEdges
from stepscope.hooks.injections.injection import Injection, over
from stepscope.hooks.injections.meter import Meter, lay
from stepscope.hooks.norm_buffer import NormBuffer, Place, norm_into
from stepscope.hooks.observe import MEASURES, PASS_STREAMS, Observer
from stepscope.hooks.order import reading
from stepscope.hooks.sites import Block

CONTROLNET = "controlnet"


def between_blocks(denoiser: nn.Module, network: nn.Module | None) -> "Residuals | None":
    """Of a model whose ControlNet adds to the image tokens between blocks."""
    if network is None or not family_of(denoiser).adds_residuals:
        return None
    return Residuals(blocks_of(denoiser))


def on_skips(denoiser: nn.Module, network: nn.Module | None) -> "SkipResiduals | None":
    """Of a U-Net."""
    if network is None or not isinstance(denoiser, UNet2DConditionModel):
        return None
    return SkipResiduals(denoiser, UnetEdges(denoiser, network))


def places_between(blocks: Sequence[Block]) -> list[Injection]:
    """The places of a ControlNet that adds to the image tokens after each of these blocks."""
    return [Injection(CONTROLNET, block.name, "image") for block in blocks]


class Residuals:
    """Norms of the residuals that a ControlNet hands to a FLUX transformer, already scaled by alpha.

    Only the few distinct tensors are reduced; `_sources` spreads them over the blocks as
    FluxTransformer2DModel.forward does: double block i gets r[i // ceil(doubles / len(r))]
    (r[i % len(r)] if the ControlNet repeats), single block i gets s[i // ceil(singles / len(s))].
    They are added to the residual stream after the block, whose norm the observer has.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.injections = places_between(blocks)
        kinds = [block.kind for block in blocks]
        self._doubles, self._singles = kinds.count("double"), kinds.count("single")
        self._buffer = NormBuffer(0)
        self._counts = (0, 0)
        self._repeat = False

    def reset(self) -> None:
        self._buffer.reset()

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            double = kwargs.get("controlnet_block_samples") or []
            single = kwargs.get("controlnet_single_block_samples") or []
            residuals = [*double, *single]
            if not clock.running or not residuals:
                return
            if (len(double), len(single)) != self._counts:
                self._counts = len(double), len(single)
                self._buffer = NormBuffer(len(residuals))
            self._repeat = bool(kwargs.get("controlnet_blocks_repeat"))
            rows, device = residuals[0].shape[0], residuals[0].device
            self._buffer.start_pass((clock.step, clock.nth), (rows,), clock.steps, device)
            for row, residual in zip(self._buffer.row, residuals, strict=True):
                norm_into(row, residual)

        return [compiled.before(denoiser, reading(hook), with_kwargs=True, outside=True)]

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        given, sources, found = self._buffer.read(), self._sources(), {}
        for place, norms in seen.norms.read().items():
            h = observed(seen, norms, "residual", "image")
            found[place] = np.zeros_like(h)
            if place in given:
                for block, source in enumerate(sources):
                    if source is not None:
                        found[place][block] = given[place][source] / h[block]
        return found

    def _sources(self) -> list[int | None]:
        """For each block, which residual it gets."""
        double, single = self._counts
        sources: list[int | None] = []
        for count, blocks, offset in ((double, self._doubles, 0), (single, self._singles, double)):
            every = math.ceil(blocks / count) if count else 0
            for i in range(blocks):
                which = i % count if self._repeat and not offset else i // every if count else None
                sources.append(None if which is None else offset + which)
        return sources


def observed(seen: Observer, norms: np.ndarray, measure: str, stream: str) -> np.ndarray:
    """The L2 norms over tokens and channels of a pass that an observer took, (block, row of the batch)."""
    slots = norms.reshape(len(MEASURES), len(seen.blocks), len(PASS_STREAMS), -1)
    return slots[MEASURES.index(measure), :, PASS_STREAMS.index(stream)]


class SkipResiduals:
    """Norms of the residuals that a ControlNet hands to a U-Net, and of the features they are added to.

    UNet2DConditionModel.forward: the skips are the output of `conv_in` and what each block of the
    downward half hands up; the last residual is added to the middle block's output.
    """

    def __init__(self, denoiser: UNet2DConditionModel, edges: UnetEdges) -> None:
        self.injections = [
            Injection(CONTROLNET, name.removesuffix(".adapter"), "image") for name in edges.names
        ]
        self._edges, self._denoiser = edges, denoiser
        self._meter = Meter(2 * len(self.injections))
        self._next = 0

    def reset(self) -> None:
        self._meter.reset()

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        count, model = len(self.injections), self._denoiser
        handed: list[bool] = []

        def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            handed.clear()
            if not self._meter.open:
                return
            uses = list(self._edges.uses(kwargs).values())
            self._next = count
            for slot in range(count) if not uses else ():
                self._meter.leave_blank(slot)
            for slot, use in enumerate(uses):
                self._meter.put(slot, use)
            handed[:] = [True] if uses else []

        def base(*features: torch.Tensor) -> None:
            for feature in features if handed else ():
                self._meter.put(self._next, feature)
                self._next += 1

        return [
            *self._meter.attach(clock, denoiser),
            compiled.before(denoiser, reading(before), with_kwargs=True, outside=True),
            lay(model.conv_in, lambda _, args, kwargs, output: base(output), outside=True),
            *(
                lay(block, lambda _, args, kwargs, output: base(*output[1]), outside=True)
                for block in model.down_blocks
            ),
            *(
                lay(block, lambda _, args, kwargs, output: base(output), outside=True)
                for block in (model.mid_block,)
                if block is not None
            ),
        ]

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        count = len(self.injections)
        return {p: over(norms[:count], norms[count:]) for p, norms in self._meter.read().items()}
