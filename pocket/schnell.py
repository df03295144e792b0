"""Distil dev into four steps: `python -m pocket.schnell`.

Schnell starts as dev without its guidance embedding. At each of its four noise levels it learns
the mean velocity of dev's own trajectory (guidance 2, dev's spacing of noise levels) down to the
next, at first from noised renders and later from the states that it reaches itself. It never sees
the adapter.
"""

import math

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from pocket import album, folders
from pocket.flow import (
    SCHNELL_STEPS,
    USER_GUIDANCE,
    Words,
    copy_weights,
    noised,
    sample,
    transformer,
    velocity,
)
from pocket.muon import Muon, split
from pocket.training import Options, Stage, device, options, rank

SECONDS = 180.0
BATCH = 256
RATE = 6e-4
SUBSTEPS = 6
# The share of the schedule after which all states are schnell's own.
OWN_STATES_FROM = 0.4
# Dev's shift at 256 tokens (flow.DEV_SCHEDULER): its levels are even in t, where
# sigma = e^shift / (e^shift + 1/t - 1).
SHIFT = 0.5


def make(said: Options) -> None:
    """Train (or go on training) and write flux-schnell."""
    shelf = album.load(said)
    dev, words = folders.load_dev(said.models), folders.load_text(said.models)
    student = transformer(guidance=False)
    if said.onward:
        copy_weights(folders.load_schnell(said.models), student)
    else:
        copy_weights(folders.fixed_guidance(dev, USER_GUIDANCE), student)
    stage = Stage(
        "schnell", {"schnell": student}, said, rate=RATE, seconds=SECONDS, ema=0.99, compact=True
    )
    stage.optimiser = Muon(*split(stage.modules), RATE, decay=0.0)
    size = 4 if said.smoke else BATCH
    for progress in stage:
        batch = shelf.draw(size)
        told = words(batch.clip_ids, batch.t5_ids)
        if progress > OWN_STATES_FROM:
            x, start = own_states(student, batch.noise, told)
        else:
            start = 1 - torch.randint(SCHNELL_STEPS, (size,), device=device()) / SCHNELL_STEPS
            x = noised(batch.clean, batch.noise, start)
        wanted = segment(dev, x, start, told)
        stage.descend(((velocity(student, x, start, told) - wanted) ** 2).mean())
    stage.finish()
    if rank() == 0:
        folders.save_schnell(said.models, student)


@torch.no_grad()
def own_states(
    student: FluxTransformer2DModel, noise: Tensor, told: Words
) -> tuple[Tensor, Tensor]:
    """Where schnell itself stands after 0 to 3 of its steps, the same number for all rows."""
    done = int(torch.randint(SCHNELL_STEPS, ()))
    levels = [1 - i / SCHNELL_STEPS for i in range(done + 1)]
    return sample(student, noise, told, levels), noise.new_full((len(noise),), levels[-1])


@torch.no_grad()
def segment(dev: FluxTransformer2DModel, x: Tensor, start: Tensor, told: Words) -> Tensor:
    """Dev's mean velocity from `start` to schnell's next noise level, in SUBSTEPS Euler steps."""
    guidance = torch.full_like(start, USER_GUIDANCE)
    end = start - 1 / SCHNELL_STEPS
    begun, ended = _even(start), _even(end)
    state, level = x, start
    for i in range(1, SUBSTEPS + 1):
        following = _shifted(torch.lerp(begun, ended, i / SUBSTEPS))
        step = (following - level)[:, None, None]
        state = state + step * velocity(dev, state, level, told, guidance)
        level = following
    return (x - state) * SCHNELL_STEPS


def _shifted(t: Tensor) -> Tensor:
    return math.exp(SHIFT) * t / (1 + (math.exp(SHIFT) - 1) * t)


def _even(sigma: Tensor) -> Tensor:
    """The inverse of _shifted."""
    return sigma / (math.exp(SHIFT) - (math.exp(SHIFT) - 1) * sigma)


if __name__ == "__main__":
    make(options(__doc__))
