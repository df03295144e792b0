"""Seeds in words: a sample whose noise no seed alone drew has the seed -1, which nobody typed."""

import numpy as np
import xarray as xr

UNKNOWN = -1


def known_seeds(run: xr.Dataset) -> np.ndarray:
    """Whether each sample's seed (sample,) is known; 2^64 - 1, which is stored as -1, by `generator`."""
    seeds = run["seed"].values
    if "generator" not in run.variables:
        return seeds != UNKNOWN
    named = np.array([str(one).startswith("seed ") for one in run["generator"].values], bool)
    return (seeds != UNKNOWN) | named


def spoken_seed(seed: int) -> str:
    """`seed 7`, or `seed unknown`."""
    return f"seed {'unknown' if seed == UNKNOWN else seed}"


def spoken_cell(face: str, prompt: str, seed: int) -> str:
    """A cell of a grid, as error messages name it."""
    return f"face {face!r}, prompt {prompt!r}, {spoken_seed(seed)}"
