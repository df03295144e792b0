"""Prove on the user's own models that a contribution is what switching the adapter off takes away."""

import numpy as np
import xarray as xr

from stepscope.hooks.finding import Finding
from stepscope.hooks.injections.check import InjectionCheck

CLOSE = 1e-3  # float32 sums over millions of entries, against float64
CLAIM = "a contribution is what switching the adapter off changes there"


def added(check: InjectionCheck, run: xr.Dataset, eps: float) -> Finding:
    """Stored contributions of the first step against what was seen with and without each adapter.

    A place where no difference was seen must hold 0, unless an adapter declares it. Each pass's rows must
    be some branch's. They may differ by `CLOSE` of the contribution, and by 4 `eps`:
    sums in the model's dtype are rounded by as much of what is added to.
    """
    stored = run["contribution"].isel(step=0)
    left = [str(name) for name in stored["injection"].values]
    worst, count, at = 0.0, 0, ""
    for (_, place), rows in check.ratios.items():
        if place.name not in left:
            return Finding(CLAIM, False, f"{place.name} is not stored")
        here = stored.sel(injection=place.name)
        for part in rows.reshape(-1, run.sizes["sample"]).numpy():
            apart = [float(np.abs(here.sel(branch=b) - part).max()) for b in run["branch"].values]
            least = np.nanmin(apart) if np.isfinite(apart).any() else np.inf
            beyond = least / (CLOSE * float(np.abs(part).max()) + 4 * eps)
            if not beyond <= worst:
                worst, at = beyond, place.name
            count += 1
    seen = {place.name for _, place in check.ratios}
    unseen = [name for name in left if name not in seen]
    detail = f"{count} comparisons, the largest difference {worst:.2g} of what rounding allows"
    detail += f", at {at}" if at else ""
    declared = [name for name in unseen if name in check.declared]
    if declared:
        detail += f"; {len(declared)} that an adapter declares are not checked"
    rest = [name for name in unseen if name not in declared]
    loud = [name for name in rest if (stored.sel(injection=name) > 0).any()]
    if loud:
        detail += f"; {len(loud)} were stored and not seen to change, the first {loud[0]}"
    return Finding(CLAIM, bool(worst <= 1) and not loud, detail)
