"""How well embeddings tell people apart: pairs, equal-error rate, ceiling and floor."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verification:
    """Cosines of same-person and of different-person pairs, and where their errors are equal.

    `eer` is a share of pairs; `threshold` is the cosine where both errors meet; `missed` and
    `confused` are the pairs on the wrong side of it.
    """

    eer: float
    threshold: float
    missed: int
    same: int
    confused: int
    different: int
    ceiling: float
    ceiling_sd: float
    floor: float
    floor_sd: float


def verify(embeddings: Tensor, who: Tensor) -> Verification:
    """All pairs of unit embeddings (n, d) of the people `who` (n,), each pair once."""
    cosines = embeddings @ embeddings.T
    upper = torch.ones_like(cosines, dtype=torch.bool).triu(1)
    together = who[:, None] == who[None]
    same, other = cosines[together & upper].sort()[0], cosines[~together & upper].sort()[0]
    # Every same-person cosine is a candidate threshold: pairs below it are refused.
    missed = torch.searchsorted(same, same)
    confused = len(other) - torch.searchsorted(other, same)
    gap = (missed / len(same) - confused / len(other)).abs()
    best = int(gap.argmin())
    m, c = int(missed[best]), int(confused[best])
    return Verification(
        eer=(m / len(same) + c / len(other)) / 2,
        threshold=float(same[best]),
        missed=m,
        same=len(same),
        confused=c,
        different=len(other),
        ceiling=float(same.mean()),
        ceiling_sd=float(same.std()),
        floor=float(other.mean()),
        floor_sd=float(other.std()),
    )
