"""Distil dev into four steps: `python -m pocket.schnell`.

Schnell starts as dev with its guidance fixed at 2. At each of its four noise levels it learns the
mean velocity of dev's own trajectory down to the next. The first lessons lie on dev's trajectories
from pure noise, the later ones on schnell's own. It never sees the adapter, nor a render.

A lesson costs four evaluations of dev, a step of learning from it about as much, so each is
learnt from REUSE times. What ships saw 340 steps of 512 in 40 s on an H200, loss .16 -> .023. On a CPU
batches are a sixteenth as large.
"""

import math
from itertools import pairwise

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from stepscope.pocket import album, folders
from stepscope.pocket.flow import GRID, TOKEN_CHANNELS, Words, copy_weights, transformer, velocity
from stepscope.pocket.lessons import Lessons
from stepscope.pocket.muon import Muon, split
from stepscope.pocket.process import Options, device, options, rank
from stepscope.pocket.sampling import SCHNELL_STEPS, USER_GUIDANCE, even, shifted
from stepscope.pocket.text import Text
from stepscope.pocket.training import Stage

SECONDS = 60.0
BATCH = 512
RATE = 6e-4
# How often a lesson is learnt from, and how many batches of them are kept at hand.
REUSE, KEPT = 4, 16
# The share of the schedule after which half of the lessons lie on schnell's own trajectories.
OWN_FROM = 0.3
PROMPTS, SEED = 100_000, 7700
# Midpoint steps of dev in one step of schnell's.
SUBSTEPS = 2


def make(said: Options) -> None:
    """Train (or go on training) and write flux-schnell."""
    dev, words = folders.load_dev(said.models), folders.load_text(said.models)
    student = transformer(guidance=False)
    if said.onward:
        copy_weights(folders.load_schnell(said.models), student)
    else:
        copy_weights(folders.fixed_guidance(dev, USER_GUIDANCE), student)
    size = 4 if said.smoke else BATCH if device().type == "cuda" else BATCH // 16
    rate = RATE * math.sqrt(size / BATCH)
    stage = Stage(
        "schnell",
        {"schnell": student},
        said,
        rate=rate,
        seconds=SECONDS,
        ema=0.99,
        every=10,
        save_seconds=300,
        compact=True,
    )
    stage.optimiser = Muon(*split(stage.modules), rate, decay=0.0)
    asked = Asked(words, 64 if said.smoke else PROMPTS)
    lessons = Lessons(size * KEPT)
    for progress in stage:
        if not lessons or stage.step % REUSE == 0:
            own = progress > OWN_FROM and stage.step % (2 * REUSE) == 0
            told = asked.draw(math.ceil(size / SCHNELL_STEPS))
            *columns, words_of = taught(dev, told, student if own else None)
            lessons.add(*columns, *words_of)
        x, level, wanted, *words_of = lessons.draw(size)
        told = Words(*words_of)
        loss = ((velocity(student, x, level, told) - wanted) ** 2).mean((1, 2))
        stage.descend(loss.mean(), **by_level(loss, level))
    stage.finish()
    if rank() == 0:
        folders.save_schnell(said.models, student)


def by_level(loss: Tensor, level: Tensor) -> dict[str, Tensor]:
    """The mean loss at each of schnell's noise levels, without waiting for the GPU."""
    there = {f"at_{int(100 * s)}": (level == s).float() for s in levels()[:-1]}
    return {name: (loss * rows).sum() / rows.sum() for name, rows in there.items()}


class Asked:
    """Sentences of the grammar, drawn at random as their Words."""

    def __init__(self, words: Text, count: int):
        attributes, said = album.describe(count, SEED + rank())
        self.words = words
        self.clip_ids, self.t5_ids = album.tokens(album.sentences(attributes, said))

    @torch.no_grad()
    def draw(self, size: int) -> Words:
        rows = torch.randint(len(self.clip_ids), (size,), device=device())
        return self.words(self.clip_ids[rows], self.t5_ids[rows])


def levels() -> list[float]:
    """Schnell's noise levels and 0."""
    return [1 - i / SCHNELL_STEPS for i in range(SCHNELL_STEPS + 1)]


@torch.no_grad()
def taught(
    dev: FluxTransformer2DModel, told: Words, student: FluxTransformer2DModel | None
) -> tuple[Tensor, Tensor, Tensor, Words]:
    """From fresh noise, at every level: where one stands, the level, dev's mean velocity, Words.

    One walks on as dev does, or as the student where one is given.
    """
    x = torch.randn(len(told.pooled), GRID * GRID, TOKEN_CHANNELS, device=device())
    stood, wanted = [], []
    for start in levels()[:-1]:
        mean = mean_velocity(dev, x, start, told)
        stood.append(x)
        wanted.append(mean)
        walked = velocity(student, x, x.new_full((len(x),), start), told) if student else mean
        x = x - walked / SCHNELL_STEPS
    at = torch.tensor(levels()[:-1], device=x.device).repeat_interleave(len(x))
    repeated = (part.repeat(SCHNELL_STEPS, *[1] * (part.dim() - 1)) for part in told)
    return torch.cat(stood), at, torch.cat(wanted), Words(*repeated)


def mean_velocity(dev: FluxTransformer2DModel, x: Tensor, start: float, told: Words) -> Tensor:
    """Dev's mean velocity from x at `start` to schnell's next noise level, by midpoint steps."""
    begun, ended = even(start), even(start - 1 / SCHNELL_STEPS)
    grid = [shifted(begun + (ended - begun) * i / SUBSTEPS) for i in range(SUBSTEPS + 1)]
    guidance = x.new_full((len(x),), USER_GUIDANCE)
    state = x
    for level, following in pairwise(grid):
        v = velocity(dev, state, torch.full_like(guidance, level), told, guidance)
        middle = (level + following) / 2
        half = state + (middle - level) * v
        v = velocity(dev, half, torch.full_like(guidance, middle), told, guidance)
        state = state + (following - level) * v
    return (x - state) * SCHNELL_STEPS


if __name__ == "__main__":
    make(options(__doc__))
