"""The numbers of looks and hats as an error can read them: circles have no ends."""

import math
from typing import Any

import torch
from torch import Tensor


def circled(designs: Tensor, of: Any) -> Tensor:
    """(n, numbers) in [0, 1] to [-1, 1]; those that go round, to their cosine and sine.

    of: the world's module `looks` or `hats`. Rows of NaN stay NaN.
    """
    names = of.LOOK if hasattr(of, "LOOK") else of.HAT
    angle = [names.index(name) for name in of.CIRCULAR]
    plain = [i for i in range(len(names)) if i not in angle]
    turns = 2 * math.pi * designs[:, angle]
    return torch.cat([2 * designs[:, plain] - 1, turns.cos(), turns.sin()], 1)
