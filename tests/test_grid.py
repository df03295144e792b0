"""The grid of a run: every face, prompt and seed once, and noise that is the seed's alone."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import grid

SHAPE = (4, 2, 6)
NAMES = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3, unique=True)
SEEDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4, unique=True)


@settings(max_examples=40, deadline=None)
@given(faces=NAMES, prompts=NAMES, seeds=SEEDS, size=st.integers(1, 5))
def test_noise_depends_on_its_own_seed_alone(faces, prompts, seeds, size):
    """Not on the batch, the face, the prompt, or the other seeds."""
    cells = grid.cells(faces, prompts, seeds)
    for batch in grid.batches(cells, size, np.zeros(len(cells), bool)):
        for cell, noise in zip(batch, grid.noise(batch, SHAPE, None), strict=True):
            own = torch.randn(SHAPE, generator=torch.Generator().manual_seed(cell.seed))
            assert torch.equal(noise, own)


@settings(max_examples=40, deadline=None)
@given(faces=NAMES, prompts=NAMES, seeds=SEEDS, size=st.integers(1, 5), data=st.data())
def test_batches_are_the_same_samples_after_an_interruption(faces, prompts, seeds, size, data):
    cells = grid.cells(faces, prompts, seeds)
    assert len({(c.face, c.prompt, c.seed) for c in cells}) == len(cells)
    assert [c.index for c in cells] == list(range(len(faces) * len(prompts) * len(seeds)))
    done = np.array(data.draw(st.lists(st.booleans(), min_size=len(cells), max_size=len(cells))))
    every = list(grid.batches(cells, size, np.zeros(len(cells), bool)))
    left = list(grid.batches(cells, size, done))
    assert left == [b for b in every if not all(done[c.index] for c in b)]
