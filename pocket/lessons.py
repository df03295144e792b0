"""The latest lessons of a distillation, kept to be learnt from several times."""

import torch
from torch import Tensor


class Lessons:
    """Rows of several columns, at most `kept` of them; the oldest go first."""

    def __init__(self, kept: int):
        self.kept = kept
        self.columns: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def add(self, *new: Tensor) -> None:
        """Add rows: columns of the same first dimension, always in the same order."""
        old = self.columns or tuple(column[:0] for column in new)
        both = (torch.cat(pair) for pair in zip(old, new, strict=True))
        self.columns = tuple(column[-self.kept :] for column in both)

    def draw(self, size: int) -> tuple[Tensor, ...]:
        """Rows at random, as columns."""
        rows = torch.randint(len(self), (size,), device=self.columns[0].device)
        return tuple(column[rows] for column in self.columns)
