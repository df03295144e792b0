"""What an adapter adds to a FLUX transformer's image tokens between blocks: |alpha r_j| over |h_i|."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.clock import Clock
from stepscope.hooks.norm_buffer import NormBuffer, Place, norm_into
from stepscope.hooks.order import reading


class Residuals:
    """Norms of the residuals that a ControlNet hands to a FLUX transformer, already scaled by alpha.

    Only the few distinct tensors are reduced; `sources` spreads them over the blocks as
    FluxTransformer2DModel.forward does: double block i gets r[i // ceil(doubles / len(r))]
    (r[i % len(r)] if the ControlNet repeats), single block i gets s[i // ceil(singles / len(s))].
    """

    def __init__(self, doubles: int, singles: int) -> None:
        self.doubles, self.singles = doubles, singles
        self._buffer = NormBuffer(0)
        self._counts = (0, 0)
        self._repeat = False

    def reset(self) -> None:
        """Start a pipeline call: nothing has been handed over."""
        self._buffer.reset()

    def attach(self, clock: Clock, transformer: nn.Module) -> RemovableHandle:
        """Lay the hook; the caller removes the handle."""

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

        return transformer.register_forward_pre_hook(reading(hook), with_kwargs=True)

    def read(self) -> Mapping[Place, np.ndarray]:
        """L2 norms of what was handed to each pass, (residual, row of the batch)."""
        return self._buffer.read()

    def sources(self) -> list[int | None]:
        """For each block, which residual it gets."""
        double, single = self._counts
        sources: list[int | None] = []
        for count, blocks, offset in ((double, self.doubles, 0), (single, self.singles, double)):
            every = math.ceil(blocks / count) if count else 0
            for i in range(blocks):
                which = i % count if self._repeat and not offset else i // every if count else None
                sources.append(None if which is None else offset + which)
        return sources
