"""Buffers on the device that norms are reduced into, allocated once and read once a call."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

Place = tuple[int, int]
"""A forward pass of a call: the step, and which of the step's passes it is."""


class NormBuffer:
    """One number (or one row of numbers) a pass, slot and row of its batch, in float32.

    A slot is one stream of one site. Slots that no hook writes stay NaN. Buffers are kept for the
    next call; passes of different shapes have buffers of their own, since guidance may be switched
    off along a call.

    row: the slots of the pass under way, written by hooks. They are views of one buffer, made once
        and copied to the pass's place when the next one begins: 228 views a pass would take as long
        as a tenth of the norms.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.row: tuple[torch.Tensor, ...] = ()
        self._current = torch.empty(0)
        self._target: torch.Tensor | None = None
        self._buffers: dict[tuple[int, ...], torch.Tensor] = {}
        self._places: dict[Place, tuple[int, ...]] = {}

    def reset(self) -> None:
        """Forget the last call's values."""
        self._places.clear()
        self._target = None

    def start_pass(
        self, place: Place, shape: tuple[int, ...], steps: int, device: torch.device
    ) -> None:
        """Make `row` the slots of this pass, each of `shape` = (row of the batch, ...)."""
        self.keep()
        step, nth = place
        key = (nth, *shape)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.shape[0] < steps or buffer.device != device:
            buffer = self._buffers[key] = _empty((steps, self.slots, *shape), device)
        if self._current.shape != buffer.shape[1:] or self._current.device != device:
            self._current = _empty((self.slots, *shape), device)
            self.row = self._current.unbind(0)
        self._places[place] = key
        self._target = buffer[step]
        self._current.fill_(torch.nan)

    @property
    def now(self) -> torch.Tensor:
        """All slots of the pass under way, (slot, row of the batch, ...)."""
        return self._current

    def write(self, slots: Sequence[int], values: torch.Tensor) -> None:
        """Values of some slots of the pass under way, (slot, row of the batch, ...)."""
        self._current[list(slots)] = values

    def keep(self) -> None:
        """Put the slots of the pass that ended in their place."""
        if self._target is not None:
            self._target.copy_(self._current)
            self._target = None

    def read(self) -> Mapping[Place, np.ndarray]:
        """The values of each pass of the call, (slot, row of the batch, ...), on the host."""
        self.keep()
        host = {key: self._buffers[key].cpu().numpy() for key in set(self._places.values())}
        return {place: host[key][place[0]] for place, key in self._places.items()}


def _empty(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    # Also under `torch.inference_mode`: what it makes could not be written by a later call without it.
    with torch.inference_mode(False):
        return torch.empty(shape, dtype=torch.float32, device=device)


# Autograd refuses `out=`. Pipelines run without it, and a detached view costs a tenth of a norm.


def norm_into(row: torch.Tensor, stream: torch.Tensor) -> None:
    """L2 norm over tokens and channels of a stream (batch, token, channel) into row (batch,)."""
    if stream.requires_grad:
        stream = stream.detach()
    torch.linalg.vector_norm(stream, 2, (1, 2), dtype=torch.float32, out=row)


def token_norm_into(row: torch.Tensor, stream: torch.Tensor) -> None:
    """L2 norm over channels of each token of a stream (batch, token, channel) into row (batch, token)."""
    if stream.requires_grad:
        stream = stream.detach()
    torch.linalg.vector_norm(stream, 2, -1, dtype=torch.float32, out=row)


def channel_norm_into(row: torch.Tensor, stream: torch.Tensor) -> None:
    """L2 norm over tokens of each channel of a stream (batch, token, channel) into row (batch, channel)."""
    if stream.requires_grad:
        stream = stream.detach()
    torch.linalg.vector_norm(stream, 2, 1, dtype=torch.float32, out=row)
