"""States that an adapter on dev itself reaches from noise, for its lessons.

A part of each batch starts from noise and goes through a few steps of its own at the users' guidance, so
that likeness is learnt on the states that sampling visits (as PuLID does on a few-step model).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from stepscope.pocket.album import Batch
from stepscope.pocket.flow import Words, noised
from stepscope.pocket.sampling import DEV_STEPS, USER_GUIDANCE, draw_sigmas, shifted

Velocity = Callable[[Tensor, Tensor, Words, Tensor, Tensor], Tensor]
"""(x, sigma, words, guidance, identity tokens) to dev's velocity with an adapter."""

SIGMA_MEAN = 0.8
# The part of a batch on states of its own, after 1 to OWN_DONE steps of a run of dev whose steps are
# as long as those of a run of 4 to 28. With the noise levels of one run only, the adapter learnt to
# speak up at just those: its contribution doubled there.
OWN_SHARE, OWN_DONE, OWN_RUNS = 0.25, 4, (4, DEV_STEPS)


@torch.no_grad()
def states(
    velocity: Velocity, batch: Batch, told: Words, identity: Tensor, done: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(x, sigma, guidance, own): the first `own` rows walked `done` steps, the others are noised."""
    size = len(batch.rows)
    own = int(OWN_SHARE * size)
    levels = walk(done)
    said = Words(told.tokens[:own], told.pooled[:own])
    walked = walk_along(velocity, batch.noise[:own], said, identity[:own], levels)
    sigma = draw_sigmas(size, SIGMA_MEAN, uniform=0.1)
    sigma[:own] = levels[-1]
    guidance = torch.ones_like(sigma)
    guidance[:own] = USER_GUIDANCE
    x = noised(batch.clean, batch.noise, sigma)
    x[:own] = walked
    return x, sigma, guidance, own


@torch.no_grad()
def walk_along(
    velocity: Velocity, x: Tensor, told: Words, identity: Tensor, levels: Sequence[float]
) -> Tensor:
    """Euler from x through the noise levels, at the users' guidance."""
    guidance = x.new_full((len(x),), USER_GUIDANCE)
    for level, following in pairwise(levels):
        sigma = x.new_full((len(x),), level)
        x = x + (following - level) * velocity(x, sigma, told, guidance, identity)
    return x


def walk(done: int) -> list[float]:
    """Noise levels from 1 down `done` steps of a dev run of random length, even in dev's own time."""
    length = 1 / torch.empty(()).uniform_(*OWN_RUNS).item()
    return [shifted(1 - i * length) for i in range(done + 1)]
