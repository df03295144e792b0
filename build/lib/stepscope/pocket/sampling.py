"""How images are drawn from noise: schedules, noise levels, and one Euler loop for dev and schnell."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler as Scheduler,
)
from torch import Tensor

from stepscope.pocket.flow import GRID, Words, infuse, velocity
from stepscope.pocket.process import device

USER_GUIDANCE = 2.0
SCHNELL_STEPS, DEV_STEPS = 4, 28
# Rows sampled at once: two cores are fastest with few.
AT_ONCE = {"cuda": 512, "cpu": 4}

# As in the published folders: dev's shift follows the number of tokens, schnell has none.
_SHIFTS = {
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
}
DEV_SCHEDULER = {**_SHIFTS, "shift": 3.0, "use_dynamic_shifting": True}
SCHNELL_SCHEDULER = {**_SHIFTS, "shift": 1.0, "use_dynamic_shifting": False}
# Dev's shift at 256 tokens: its levels are even in t, where sigma = e^SHIFT / (e^SHIFT + 1/t - 1).
SHIFT = 0.5


def sigmas(scheduler: dict[str, Any], steps: int) -> list[float]:
    """The steps + 1 noise levels that FluxPipeline would use for 128 pixels, 1 to 0."""
    own: Any = Scheduler(**scheduler)
    shift = calculate_shift(GRID * GRID, *_SHIFTS.values())
    own.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps).tolist(), mu=shift)
    return [float(sigma) for sigma in own.sigmas]


def shifted(t: float) -> float:
    """Dev's noise level at t."""
    return math.exp(SHIFT) * t / (1 + (math.exp(SHIFT) - 1) * t)


def even(sigma: float) -> float:
    """The inverse of `shifted`."""
    return sigma / (math.exp(SHIFT) - (math.exp(SHIFT) - 1) * sigma)


def draw_sigmas(count: int, mean: float, uniform: float = 0.15) -> Tensor:
    """Noise levels for training: logit-normal about `mean`, a share of them uniform."""
    normal = torch.sigmoid(torch.randn(count, device=device()) + mean)
    level = torch.rand(count, device=device())
    return torch.where(torch.rand(count, device=device()) < uniform, level, normal)


class Adapter(NamedTuple):
    """An InfuseNet with its (b, 8, 128) identity tokens and the packed latents of black."""

    infusenet: FluxControlNetModel
    identity: Tensor
    black: Tensor
    scale: float = 1.0


@torch.no_grad()
def sample(
    model: FluxTransformer2DModel,
    x: Tensor,
    words: Words,
    levels: Sequence[float],
    guidance: float | None = None,
    adapter: Adapter | None = None,
) -> Tensor:
    """Euler from packed noise x through the noise levels; `guidance` is dev's embedding.

    Gives the latents of diffusers' own FluxPipeline (tests/test_pocket_flow.py).
    """
    parts = []
    for rows in torch.arange(len(x), device=x.device).split(AT_ONCE[x.device.type]):
        told = Words(*(part[rows] for part in words))
        mine = adapter and adapter._replace(identity=adapter.identity[rows])
        parts.append(_sample(model, x[rows], told, levels, guidance, mine))
    return torch.cat(parts)


def _sample(
    model: FluxTransformer2DModel,
    x: Tensor,
    words: Words,
    levels: Sequence[float],
    guidance: float | None,
    adapter: Adapter | None,
) -> Tensor:
    for level, following in pairwise(levels):
        sigma = x.new_full((len(x),), level)
        scale = None if guidance is None else torch.full_like(sigma, guidance)
        added = adapter and infuse(
            adapter.infusenet,
            x,
            sigma,
            adapter.identity,
            words.pooled,
            adapter.black,
            adapter.scale,
        )
        x = x + (following - level) * velocity(model, x, sigma, words, scale, added)
    return x
