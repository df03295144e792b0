"""The grid of a run: every face, prompt and seed once, and noise that is the seed's alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepscope.analysis.runs import open_recorded
from stepscope.hooks.labels import stored_seed
from stepscope.probes import grid
from tests.shell import tiny

SHAPE = (4, 2, 6)
NAMES = st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=3, unique=True)
EXTREME = st.sampled_from([-1, 0, 2**63 - 1, 2**63, -(2**63) + 1, 2**64 - 2, 2**32])
SEEDS = st.lists(
    EXTREME | st.integers(-(2**63), 2**64 - 1),
    min_size=1,
    max_size=4,
    unique_by=lambda s: s % 2**64,
)


@settings(max_examples=40, deadline=None)
@given(faces=NAMES, prompts=NAMES, seeds=SEEDS, size=st.integers(1, 5))
def test_noise_depends_on_its_own_seed_alone(faces, prompts, seeds, size):
    """Not on the batch, the face, the prompt, or the other seeds; and it is torch's for that seed."""
    cells = grid.cells(faces, prompts, seeds)
    written = {stored_seed(seed): seed for seed in seeds}
    assert all(-(2**63) <= seed < 2**63 for seed in written)
    for batch in grid.batches(cells, size, np.zeros(len(cells), bool)):
        for cell, noise in zip(batch, grid.noise(batch, SHAPE, None), strict=True):
            own = torch.randn(SHAPE, generator=torch.Generator().manual_seed(written[cell.seed]))
            assert torch.equal(noise, own)


@given(a=st.integers(-(2**63), 2**64 - 1), b=st.integers(-(2**63), 2**64 - 1) | st.just(2**32))
def test_seeds_with_equal_noise_are_those_that_draw_it(a, b):
    draws = [torch.randn(8, generator=torch.Generator().manual_seed(s)) for s in (a, b)]
    expected = [a, b] if torch.equal(*draws) and a != b else []
    assert grid.equal_noise([a, b]) == expected


@pytest.mark.parametrize(
    "seeds", [[-(2**63), -1], [2**63 - 1, 2**63], [2**63 + 5, 2**64 - 1]], ids=str
)
def test_a_seed_of_64_bits_makes_its_noise_and_is_kept_as_the_same_bits(seeds, typed, tmp_path):
    answer = typed(tiny(seeds=f"[{','.join(map(str, seeds))}]", out=tmp_path / "run.zarr"))
    assert answer.status == 0, answer.err
    assert "warning" not in answer.err
    run = open_recorded(tmp_path / "run.zarr")
    assert run.seed.dtype == np.int64
    assert run.generator.values.tolist() == [f"seed {seed % 2**64}" for seed in seeds]
    assert [seed % 2**64 for seed in run.seed.values.tolist()] == [seed % 2**64 for seed in seeds]
    assert run.attrs["configuration"]["seeds"] == seeds
    for sample, seed in enumerate(seeds):
        noise = torch.randn((4, 16, 16), generator=torch.Generator().manual_seed(seed))
        np.testing.assert_array_equal(run.latents[sample, 0], noise)
    assert "nothing to do" in typed(tiny(seeds=seeds, out=tmp_path / "run.zarr")).out


def test_seeds_with_the_same_noise_are_told(typed, tmp_path):
    answer = typed(tiny(seeds=f"[7,{7 + 2**32}]", out=tmp_path / "run.zarr"))
    assert answer.status == 0
    line = f"warning: seeds 7 and {7 + 2**32} make the same noise: their low 32 bits are equal"
    assert line in answer.err.splitlines()


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
