"""The grid of `tests.killing`: made in forks, and compared with what it is when nobody disturbs it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from tests.test_record import TIMINGS

SAMPLES = 8
ROOT = Path(__file__).parents[1]
Forks = Callable[..., list[str]]


@contextmanager
def forking(face: Path) -> Iterator[Forks]:
    """`forks(path, seconds, ...)`: processes that make one run, each killed after so long; how each ended.

    Negative seconds: never.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.killing", str(face)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    to, answers = process.stdin, process.stdout
    assert to is not None
    assert answers is not None

    def of(path: Path, *seconds: float) -> list[str]:
        print(",".join(map(str, seconds)), path, file=to, flush=True)
        return answers.readline().split()

    try:
        yield of
    finally:
        process.kill()
        process.communicate()


def values(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None).drop_vars(TIMINGS)


def check_done_samples(path: Path, expected: xr.Dataset) -> int:
    """Samples that say they are done are those of the undisturbed run, whole; how many."""
    if not path.exists():
        return 0
    seen = values(path)
    assert seen.sizes == expected.sizes
    done = np.flatnonzero(seen.done)
    for name, wanted in expected.variables.items():
        along = "sample" in wanted.dims
        if along or done.size:  # sigma and timestep are written with the first sample
            rows = done if along else slice(None)
            np.testing.assert_array_equal(seen[name].values[rows], wanted.values[rows], str(name))
    return len(done)
