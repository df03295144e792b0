"""The samples of a run: face x prompt x seed, in batches, each with noise of its own seed alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.labels import stored_seed
from stepscope.hooks.paths import beside
from stepscope.probes.places import located


@dataclass(frozen=True)
class Cell:
    """One sample: its place in the run, and what makes it. seed: as a run keeps it."""

    index: int
    face: str
    prompt: str
    seed: int


def cells(faces: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The grid, the seed changing fastest. Without faces, the face is the empty string."""
    grid = product(faces or [""], prompts, map(stored_seed, seeds))
    return [Cell(i, face, prompt, seed) for i, (face, prompt, seed) in enumerate(grid)]


def batches(grid: Sequence[Cell], size: int, done: np.ndarray) -> Iterator[list[Cell]]:
    """Consecutive batches in which some sample is not done.

    A batch is always the same samples, also after an interruption: matrix products of another batch
    size may differ in their last bits.
    """
    for batch in split(grid, size):
        if not done[[cell.index for cell in batch]].all():
            yield batch


def split(grid: Sequence[Cell], size: int) -> Iterator[list[Cell]]:
    """Consecutive batches."""
    for start in range(0, len(grid), size):
        yield list(grid[start : start + size])


def recorded_batches(
    cells: Sequence[Cell], size: int, calls: np.ndarray, done: np.ndarray
) -> Iterator[list[Cell]]:
    """The batches of a run in which some sample is not done; a run that has grown has an odd one inside.

    calls, done: of the run's samples; the first sample of each one's batch, -1 where it is not known.
    """
    if (calls[[cell.index for cell in cells]] < 0).any():
        yield from batches(cells, size, done)
        return
    together: dict[int, list[Cell]] = {}
    for cell in cells:
        together.setdefault(int(calls[cell.index]), []).append(cell)
    for batch in together.values():
        if not done[[cell.index for cell in batch]].all():
            yield batch


def noise(
    batch: Sequence[Cell], shape: tuple[int, int, int], given: Float[np.ndarray, "n c y x"] | None
) -> Float[Tensor, "sample channel y x"]:
    """Initial latents, unit normal in float32, drawn on the CPU from each cell's seed alone.

    given: instead, latents for every cell of the grid, or one for all.
    """
    if given is not None:
        rows = [given[cell.index if len(given) > 1 else 0] for cell in batch]
        return torch.from_numpy(np.stack(rows)).float()
    draws = [
        torch.randn(shape, generator=torch.Generator().manual_seed(cell.seed)) for cell in batch
    ]
    return torch.stack(draws)


def equal_noise(seeds: Sequence[int]) -> list[int]:
    """The first two seeds with the same noise, or none: torch's generator on the CPU reads 32 bits.

    It is a Mersenne twister that starts from the low half of the seed (ATen/core/MT19937RNGEngine.h).
    """
    seen: dict[int, int] = {}
    for seed in seeds:
        other = seen.setdefault(seed % 2**32, seed)
        if other != seed:
            return [other, seed]
    return []


def read_latents(
    path: str, shape: tuple[int, int, int], samples: int
) -> Float[np.ndarray, "n c y x"]:
    """Initial latents from a `.npy`: (channel, y, x) or (sample, channel, y, x), unpacked.

    Raises StepscopeError if there is no such file, its shape is not the run's, or a value is not finite.
    """
    file = located(path)
    if not file.is_file():
        raise StepscopeError(f"initial_latents: no file {path!r}{beside(file)}")
    try:
        latents = np.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise StepscopeError(f"initial_latents {path!r} cannot be read as a .npy") from error
    if latents.dtype.kind not in "iuf" or not np.isfinite(latents).all():
        raise StepscopeError(f"initial_latents {path!r} holds what is not a finite number")
    latents = latents[None] if latents.ndim == 3 else latents
    if latents.shape[1:] != shape or len(latents) not in (1, samples):
        raise StepscopeError(
            f"initial_latents {path!r} is {latents.shape}; this run needs {shape} for one sample, or "
            f"{(samples, *shape)} for all"
        )
    return latents
