"""The grid of `tests.killing`, compared with what it is when nobody disturbs it."""

from pathlib import Path

import numpy as np
import xarray as xr

from tests.test_record import TIMINGS

SAMPLES = 8


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
