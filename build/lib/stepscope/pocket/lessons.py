"""The latest lessons of a distillation, kept to be learnt from several times."""

import torch
from torch import Tensor

from stepscope.pocket.flow import Words


class Lessons:
    """Rows of (x, level, wanted velocity, Words), at most `kept` of them; the oldest go first."""

    def __init__(self, kept: int):
        self.kept = kept
        self.columns: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def add(self, x: Tensor, level: Tensor, wanted: Tensor, told: Words) -> None:
        """Add rows; all have the same first dimension."""
        new = (x, level, wanted, *told)
        old = self.columns or tuple(column[:0] for column in new)
        both = (torch.cat(pair) for pair in zip(old, new, strict=True))
        self.columns = tuple(column[-self.kept :] for column in both)

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor, Words]:
        """Rows at random."""
        rows = torch.randint(len(self), (size,), device=self.columns[0].device)
        x, level, wanted, tokens, pooled = (column[rows] for column in self.columns)
        return x, level, wanted, Words(tokens, pooled)
