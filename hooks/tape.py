"""Buffers on the device that norms are reduced into, allocated once and read once a call."""

import torch


class Tape:
    """One number (or one row of numbers) a step, branch, slot and batch element, in float32.

    A slot is one stream of one site. Slots that no hook writes stay NaN. Buffers are kept for the
    next call and only replaced when its shape or device differs.

    row: the slots of the pass under way, written by hooks. They are views of one buffer, made once
        and copied to the pass's place when the next one begins: 228 views a pass would take as long
        as a tenth of the norms.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.row: tuple[torch.Tensor, ...] = ()
        self.tokens: list[int] = [1] * slots
        self._current = torch.empty(0)
        self._place: torch.Tensor | None = None
        self._buffers: dict[int, torch.Tensor] = {}
        self._used: set[int] = set()

    def rewind(self) -> None:
        """Forget the last call's values."""
        self._used.clear()
        self._place = None

    def turn(
        self, branch: int, step: int, shape: tuple[int, ...], steps: int, device: torch.device
    ) -> None:
        """Make `row` the slots of this branch and step, each of `shape` = (batch, ...)."""
        self._keep()
        buffer = self._buffers.get(branch)
        wanted = (steps, self.slots, *shape)
        if buffer is None or buffer.shape != wanted or buffer.device != device:
            buffer = torch.empty(wanted, dtype=torch.float32, device=device)
            self._buffers[branch] = buffer
            self._used.discard(branch)
        if branch not in self._used:
            buffer.fill_(torch.nan)
            self._used.add(branch)
        if self._current.shape != wanted[1:] or self._current.device != device:
            self._current = torch.empty(wanted[1:], dtype=torch.float32, device=device)
            self.row = self._current.unbind(0)
        self._place = buffer[step]
        self._current.copy_(self._place)  # NaN, or what another pass at this place has written

    def read(self, steps: int) -> dict[int, torch.Tensor]:
        """The values of each branch used, (step, slot, batch, ...), still on the device."""
        self._keep()
        return {branch: self._buffers[branch][:steps] for branch in sorted(self._used)}

    def _keep(self) -> None:
        if self._place is not None:
            self._place.copy_(self._current)
            self._place = None


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
