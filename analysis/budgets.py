"""Identity against the number of steps of whole runs: a curve of another kind than those along one run."""

from collections.abc import Callable, Sequence

import xarray as xr

from stepscope.analysis import cells
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import setting


def budgets(
    evidence: Evidence,
    runs: Sequence[xr.Dataset],
    read: Callable[[xr.Dataset], xr.DataArray] | None = None,
) -> xr.DataArray:
    """Similarity (sample, budget) of the final images of runs with different step counts.

    read: what gives it (sample) of a run; `evidence.endpoint` if none is named. budget: number of steps;
    sigma: the last noise level of each run. Only cells that all runs have.
    """
    runs = sorted(runs, key=lambda run: setting(run, "steps"))
    ends = [(read or evidence.endpoint)(run) for run in runs]
    keys = [cells.cell_keys(end) for end in ends]
    common = [key for key in keys[0] if all(key in others for others in keys[1:])]
    rows = [
        end.isel(sample=[k.index(key) for key in common]).drop_vars("sample", errors="ignore")
        for end, k in zip(ends, keys, strict=True)
    ]
    joined = xr.concat(rows, "budget", coords="minimal", compat="override", join="override")
    steps = [int(setting(run, "steps")) for run in runs]
    sigma = [float(run["sigma"].values[-1]) for run in runs]
    return joined.transpose("sample", "budget").assign_coords(budget=steps, sigma=("budget", sigma))
