"""How much of a residual stream's norm a few channels hold.

In large transformers a few channels of the residual stream are far larger than all others at every
token (massive activations: Sun et al. 2024, arXiv 2402.17762), so that its norm is nearly the norm of
those few. Beside it stands the norm without them, and their share.
"""

from collections import defaultdict

import torch

from stepscope.hooks.norm_buffer import channel_norm_into


class Channels:
    """Norms of every channel of the streams that one pass has read, reduced together when it ends.

    massive: how many of the largest channels are left out.
    """

    def __init__(self, massive: int) -> None:
        self.massive = massive
        self._norms: dict[tuple[int, int], torch.Tensor] = {}
        self._seen: set[tuple[int, int]] = set()

    def read(self, slot: int, first: int, stream: torch.Tensor) -> None:
        """Take a stream (row of the batch, token, channel), whose rows begin at `first`."""
        row = slot, first
        into = self._norms.get(row)
        shape = stream.shape[0], stream.shape[2]
        if into is None or into.shape != shape or into.device != stream.device:
            with torch.inference_mode(False):
                into = torch.empty(shape, dtype=torch.float32, device=stream.device)
            self._norms[row] = into
        channel_norm_into(into, stream)
        self._seen.add(row)

    def reduce(self) -> list[tuple[list[tuple[int, int]], torch.Tensor]]:
        """For streams of the same shape: their (slot, first row), and (3, stream, row of the batch).

        The three: the L2 norm over tokens and channels, the same without the `massive` largest
        channels of each sample, and the share of the squared norm that those hold.
        """
        alike: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
        for row in sorted(self._seen):
            alike[tuple(self._norms[row].shape)].append(row)
        self._seen.clear()
        return [
            (rows, self._three(torch.stack([self._norms[row] for row in rows])))
            for rows in alike.values()
        ]

    def _three(self, norms: torch.Tensor) -> torch.Tensor:
        """From the norm of each channel, (stream, row of the batch, channel)."""
        whole = torch.linalg.vector_norm(norms, dim=-1)
        if not self.massive:
            return torch.stack([whole, whole, torch.zeros_like(whole)])
        count = min(self.massive, norms.shape[-1])
        largest, channels = norms.topk(count, dim=-1)
        share = (largest / whole[..., None]).square().sum(-1)
        rest = torch.linalg.vector_norm(norms.scatter(-1, channels, 0.0), dim=-1)
        return torch.stack([whole, rest, share])


def of_channels(squares: torch.Tensor, massive: int) -> torch.Tensor:
    """The three numbers of `Channels.reduce`, (3, ...), from squared norms of channels, (..., channel).

    massive: how many of the largest channels are left out.
    """
    whole = squares.sum(-1)
    if not massive:
        return torch.stack([whole.sqrt(), whole.sqrt(), torch.zeros_like(whole)])
    largest, channels = squares.topk(min(massive, squares.shape[-1]), dim=-1)
    rest = squares.scatter(-1, channels, 0.0).sum(-1)
    return torch.stack([whole.sqrt(), rest.sqrt(), largest.sum(-1) / whole])
