"""Pinned memory of a fixed size through which whole tensors leave the device while it goes on computing.

A tensor is copied on the device at once, since what runs next may write over it, and from there on a stream
of its own. Who asks for room while all of it is taken waits until a writer has given some back: memory is
bounded, and nothing is lost.
"""

import threading
from collections import defaultdict
from collections.abc import Sequence

import torch

LIMIT = 2**30
"""Bytes of the host that tensors on their way take, at most; one tensor that is larger has it alone."""


class Ring:
    """limit: bytes of tensors on their way."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit, self._taken, self._made = limit, 0, 0
        self._free: dict[tuple[int, bool], list[torch.Tensor]] = defaultdict(list)
        self._room = threading.Condition()
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def take(self, tensor: torch.Tensor) -> "Held":
        """A copy on the host, in the tensor's own dtype, that may still be under way."""
        tensor = tensor.detach()
        size = tensor.numel() * tensor.element_size()
        slab = self._slab(size, pinned=tensor.is_cuda)
        host = slab[:size].view(tensor.dtype).view(tensor.shape)
        if not tensor.is_cuda:
            host.copy_(tensor)
            return Held(self, slab, host, None)
        device = tensor.device
        with torch.cuda.device(device):
            if device not in self._streams:
                self._streams[device] = torch.cuda.Stream()
            side = self._streams[device]
            # of PyTorch's own pool, in the order of the current stream
            staged = tensor.clone(memory_format=torch.contiguous_format)
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                host.copy_(staged, non_blocking=True)
                ready = torch.cuda.Event()
                ready.record(side)
            staged.record_stream(side)
        return Held(self, slab, host, ready)

    def _slab(self, size: int, *, pinned: bool) -> torch.Tensor:
        size = max(size, 1)
        with self._room:
            self._room.wait_for(lambda: self._taken == 0 or self._taken + size <= self._limit)
            self._taken += size
            if free := self._free[size, pinned]:
                return free.pop()
            if self._made + size > self._limit:  # what is free is of other sizes
                self._free.clear()
                self._made = self._taken - size
            self._made += size
        with torch.inference_mode(False):
            return torch.empty(size, dtype=torch.uint8, pin_memory=pinned)

    def _give_back(self, slab: torch.Tensor) -> None:
        with self._room:
            self._taken -= len(slab)
            self._free[len(slab), slab.is_pinned()].append(slab)
            self._room.notify_all()


class Held:
    """A tensor on the host until `release`."""

    def __init__(
        self, ring: Ring, slab: torch.Tensor, host: torch.Tensor, ready: torch.cuda.Event | None
    ) -> None:
        self._ring, self._slab, self._host, self._ready = ring, slab, host, ready

    @property
    def shape(self) -> Sequence[int]:
        return tuple(self._host.shape)

    def values(self) -> torch.Tensor:
        """The values; waits until they have arrived."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._host

    def release(self) -> None:
        """The values are needed no more."""
        if self._ready is not None:
            self._ready.synchronize()  # or what is still under way would meet the next tensor
        self._ring._give_back(self._slab)
