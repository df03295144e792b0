"""How far what was seen lies from what was expected, over many comparisons."""

import math
from dataclasses import dataclass

import torch


@dataclass
class Tally:
    """The largest deviation seen for one claim, relative to the largest entry, and how often looked."""

    worst: float = 0.0
    count: int = 0

    def compare(self, seen: torch.Tensor, expected: torch.Tensor | None) -> None:
        """Infinitely far if nothing was expected, or another shape."""
        self.count += 1
        if expected is None or seen.shape != expected.shape:
            self.worst = math.inf
            return
        scale = expected.abs().max().float().clamp_min(1e-12)
        self.worst = max(self.worst, float((seen.float() - expected.float()).abs().max() / scale))
