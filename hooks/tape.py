"""Buffers on the device that norms are reduced into, allocated once and read once a call."""

import torch


class Tape:
    """One number (or one row of numbers) a step, branch, slot and batch element, in float32.

    A slot is one stream of one site. Slots that no hook writes stay NaN. Buffers are kept for the
    next call and only replaced when its shape or device differs.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.row: tuple[torch.Tensor, ...] = ()
        self.tokens: list[int] = [1] * slots
        self._buffers: dict[int, torch.Tensor] = {}
        self._used: set[int] = set()

    def rewind(self) -> None:
        """Forget the last call's values."""
        self._used.clear()
        self.row = ()

    def turn(
        self, branch: int, step: int, shape: tuple[int, ...], steps: int, device: torch.device
    ) -> None:
        """Make `row` the slots of this branch and step, each of `shape` = (batch, ...)."""
        buffer = self._buffers.get(branch)
        wanted = (steps, self.slots, *shape)
        if buffer is None or buffer.shape != wanted or buffer.device != device:
            buffer = torch.empty(wanted, dtype=torch.float32, device=device)
            self._buffers[branch] = buffer
            self._used.discard(branch)
        if branch not in self._used:
            buffer.fill_(torch.nan)
            self._used.add(branch)
        self.row = buffer[step].unbind(0)

    def read(self, steps: int) -> dict[int, torch.Tensor]:
        """The values of each branch used, (step, slot, batch, ...), still on the device."""
        return {branch: self._buffers[branch][:steps] for branch in sorted(self._used)}


def norm_into(row: torch.Tensor, stream: torch.Tensor) -> None:
    """L2 norm over tokens and channels of a stream (batch, token, channel) into row (batch,)."""
    torch.linalg.vector_norm(stream.detach(), 2, (1, 2), dtype=torch.float32, out=row)


def token_norm_into(row: torch.Tensor, stream: torch.Tensor) -> None:
    """L2 norm over channels of each token of a stream (batch, token, channel) into row (batch, token)."""
    torch.linalg.vector_norm(stream.detach(), 2, -1, dtype=torch.float32, out=row)
