"""Norms of the tensors that hooks meet in a pass, on the device until the call has ended."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks import compiled
from stepscope.hooks.clock import Clock
from stepscope.hooks.injections.injection import rows_of
from stepscope.hooks.norm_buffer import NormBuffer, Place
from stepscope.hooks.order import reading


class Meter:
    """One L2 norm a pass, slot and row of its batch, of whatever shape the tensor has.

    The first tensor of a slot counts: an attention that is run again (`text_and_image_prompt`) runs its
    layers again. A slot that nothing was put into is NaN, and one that was left blank is 0.
    """

    def __init__(self, slots: int) -> None:
        self._buffer = NormBuffer(slots)
        self._factors: dict[Place, np.ndarray] = {}
        self._put: dict[Place, np.ndarray] = {}
        self._now: Place | None = None

    def reset(self) -> None:
        """Forget the last call's values."""
        self._buffer.reset()
        self._factors.clear()
        self._put.clear()
        self._now = None

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        """Begin and end with the denoiser's passes; the caller removes the handles."""

        def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            self._now = None
            if clock.running:
                self._start(clock, rows_of(args, kwargs))

        def after(module: nn.Module, args: Any, output: Any) -> None:
            self._now = None

        return [
            compiled.before(denoiser, reading(before), with_kwargs=True, outside=True),
            compiled.after(denoiser, reading(after), outside=True),
        ]

    def _start(self, clock: Clock, latents: torch.Tensor) -> None:
        place = clock.step, clock.nth
        self._buffer.start_pass(place, (latents.shape[0],), clock.steps, latents.device)
        self._factors[place] = np.ones(self._buffer.slots, np.float32)
        self._put[place] = np.zeros(self._buffer.slots, bool)
        self._now = place

    @property
    def open(self) -> bool:
        """Whether a pass is under way."""
        return self._now is not None

    def put(self, slot: int, tensor: torch.Tensor, factor: float = 1.0) -> None:
        """Reduce a tensor (row, ...) into a slot; its norm is then times |factor|.

        A tensor of other rows than the pass's is not one of its own, and is passed over.
        """
        if self._now is None or self._put[self._now][slot]:
            return
        row = self._buffer.row[slot]
        if len(tensor) != len(row):
            return
        self._put[self._now][slot] = True
        self._factors[self._now][slot] = abs(factor)
        tensor = tensor.detach()
        axes = tuple(range(1, tensor.ndim))
        torch.linalg.vector_norm(tensor, 2, axes, dtype=torch.float32, out=row)

    def leave_blank(self, slot: int) -> None:
        """Nothing is added there in this pass."""
        if self._now is not None and not self._put[self._now][slot]:
            self._put[self._now][slot] = True
            self._buffer.row[slot].zero_()

    def was_put(self, place: Place) -> np.ndarray:
        """Which slots a pass has a value of, (slot,)."""
        return self._put[place]

    def read(self) -> Mapping[Place, np.ndarray]:
        """The norms of each pass of the call, (slot, row of the batch), on the host."""
        return {
            place: values * self._factors[place][:, None]
            for place, values in self._buffer.read().items()
        }


Seen = Callable[[nn.Module, Any, dict[str, Any], Any], None]


def lay(module: nn.Module, hook: Seen, *, outside: bool = False) -> RemovableHandle:
    """A forward hook that only reads. outside: as for `compiled.after`."""
    return compiled.after(module, reading(hook), with_kwargs=True, outside=outside)
