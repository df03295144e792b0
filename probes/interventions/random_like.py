"""The control of an interchange: a change of the same length, in a direction that means nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stepscope.hooks.edits import Operation
from stepscope.hooks.edits.operation import At
from stepscope.hooks.fingerprint import of_bytes


@dataclass(frozen=True)
class RandomLike(Operation):
    """Move values as far as another row's are from them, token by token, in one random direction.

    source: for each edited row, the row of the batch whose distance is taken. seeds: for each edited row,
    of its direction, which is the same for all tokens and steps of a site.
    """

    source: Sequence[int]
    seeds: Sequence[int]

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        made = []
        for own, row in zip(values, at.rows, strict=True):
            place = at.chosen.index(row)
            other = at.batch[self.source[place]][at.tokens]
            length = (other.float() - own.float()).norm(dim=-1, keepdim=True)
            unit = self._direction(self.seeds[place], at.site, own.shape[-1]).to(length)
            made.append((own + length * unit).to(own.dtype))
        return torch.stack(made)

    def _direction(self, seed: int, site: str, channels: int) -> torch.Tensor:
        """A unit vector (channel,), drawn on the CPU from a seed and a site's name."""
        number = int(of_bytes(f"{seed} {site}".encode())[:15], 16)
        drawn = torch.randn(channels, generator=torch.Generator().manual_seed(number))
        return drawn / drawn.norm()

    def told(self) -> dict[str, Any]:
        return {"do": "RandomLike", "source": list(self.source)}
