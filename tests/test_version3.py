"""A run of schema 3 has its contribution along the blocks; it is read and added to, and keeps its form."""

import shutil

import numpy as np
import xarray as xr

from stepscope.analysis.quantities import contribution
from stepscope.analysis.runs import open_recorded
from stepscope.hooks import record
from tests.cases import CASES
from tests.models import REFERENCE


def test_samples_are_added_to_it(tmp_path):
    shutil.unpack_archive(REFERENCE / "version-3" / "recorded.zip", tmp_path)
    path, case = tmp_path / "recorded.zarr", CASES["infusenet"]
    before = xr.open_zarr(path).load()
    assert before.contribution.dims == ("sample", "step", "branch", "block")
    with record(case.pipe, path) as recording:
        recording.label([{"face": "eve"}])
        case(seeds=(7,), steps=2)
    after = xr.open_zarr(path).load()
    xr.testing.assert_identical(after.isel(sample=[0, 1]), before)
    # the seed of its first sample
    np.testing.assert_allclose(after.contribution[2], before.contribution[0], rtol=1e-5)
    found = contribution(open_recorded(path)).drop_vars("log_snr")  # it is derived, not recorded
    xr.testing.assert_identical(found, after.contribution.isel(branch=0, drop=True))


def test_a_new_run_says_the_same_by_block(tmp_path):
    shutil.unpack_archive(REFERENCE / "version-3" / "recorded.zip", tmp_path)
    case = CASES["infusenet"]
    with record(case.pipe, tmp_path / "new.zarr"):
        case(seeds=(7, 8), steps=2)
    then, now = (
        contribution(open_recorded(tmp_path / f"{name}.zarr")) for name in ("recorded", "new")
    )
    assert now.dims == then.dims == ("sample", "step", "block")
    assert now.block.values.tolist() == then.block.values.tolist()
    np.testing.assert_allclose(now, then, rtol=1e-5)
