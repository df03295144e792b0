"""Muon: momentum steps orthogonalised for matrices (Jordan et al. 2024), AdamW for all the rest.

Identity is a faint direction in the gradient, and Adam follows the strong ones; a Muon step has the
same size in every direction of a weight matrix.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from stepscope.pocket.process import device

# The quintic of Jordan's reference: five rounds bring every singular value into about [0.7, 1.2].
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
MOMENTUM = 0.95
# A step's root mean square as AdamW's would be (Liu et al. 2025, "Muon is scalable", eq. 4).
STEP_RMS = 0.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """Each of (k, m, n) with its singular values moved near 1, by Newton-Schulz iterations."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.AdamW):
    """AdamW over `others`; over `matrices` Muon at `ratio` times AdamW's learning rate."""

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[Tensor],
        rate: float,
        *,
        ratio: float = 2.0,
        decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
    ):
        fused = device().type == "cuda"
        super().__init__(others, rate, betas=betas, weight_decay=decay, fused=fused)
        self.ratio, self.decay = ratio, decay
        self.shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            self.shapes[matrix.shape].append(matrix)
        self.momenta = {s: p[0].new_zeros(len(p), *s) for s, p in self.shapes.items()}

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for parameters in self.shapes.values():
            for parameter in parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().step(closure)
        rate = self.param_groups[0]["lr"] * self.ratio
        for shape, parameters in self.shapes.items():
            gradient = torch.stack([p.grad for p in parameters if p.grad is not None])
            momentum = self.momenta[shape].lerp_(gradient, 1 - MOMENTUM)
            nesterov = gradient.lerp_(momentum, MOMENTUM)
            steps = orthogonalised(nesterov) * (-rate * STEP_RMS * max(shape) ** 0.5)
            torch._foreach_mul_(parameters, 1 - rate * self.decay)
            torch._foreach_add_(parameters, list(steps.unbind()))


def split(modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices for Muon, the rest): attention and feed-forward weights of the blocks.

    Modulations (AdaLN) see only time and pooled text, which span few directions: they stay out.
    """
    matrices, others = [], []
    for name, parameter in modules.named_parameters():
        inner = "transformer_blocks." in name and parameter.ndim == 2
        if parameter.requires_grad:
            (matrices if inner and ".norm" not in name else others).append(parameter)
    return matrices, others


def by_shape(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(matrices for Muon, the rest), of an adapter's own weights: it has no modulations."""
    matrices, others = [], []
    for one in parameters:
        (matrices if one.ndim == 2 else others).append(one)
    return matrices, others
