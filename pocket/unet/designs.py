"""The numbers of looks and hats as an error can read them: circles have no ends."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def circled(designs: Tensor, names: Sequence[str], circular: Sequence[str]) -> Tensor:
    """(n, numbers) in [0, 1] to [-1, 1]; those that go round, to their cosine and sine.

    names: of the numbers. circular: those whose ends meet. Rows of NaN stay NaN.
    """
    round_ = [names.index(name) for name in circular]
    plain = [i for i in range(len(names)) if i not in round_]
    turns = 2 * math.pi * designs[:, round_]
    return torch.cat([2 * designs[:, plain] - 1, turns.cos(), turns.sin()], 1)
