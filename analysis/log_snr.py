"""The logarithm of the signal-to-noise ratio of a run's steps: the axis on which families compare.

log-SNR is 2 ln(alpha / s) in x_t = alpha x0 + s noise (Kingma et al. 2021, section 3). Sigma alone does not
compare: of rectified flow it is s with alpha = 1 - s, else s / alpha.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

FLOW = ("FlowMatchEulerDiscreteScheduler",)
"""Schedulers of rectified flow alone; others are of it where their configuration says so."""


def log_snr(
    sigma: Float[np.ndarray, "step"], scheduler: Mapping[str, Any]
) -> Float[np.ndarray, "step"]:
    """log-SNR at the start of steps, minus infinity of noise alone.

    sigma: as the scheduler has it. scheduler: its class and configuration, as a run's attribute says them.
    """
    flow = scheduler["class"] in FLOW or bool(scheduler.get("use_flow_sigmas"))
    sigma = sigma.astype(float)
    with np.errstate(divide="ignore"):
        alpha = np.log(np.clip(1 - sigma, 0, None)) if flow else 0.0
        return 2 * (alpha - np.log(sigma))


def with_log_snr(run: xr.Dataset) -> xr.Dataset:
    """A run with the coordinate `log_snr` (step); as it is where it does not say what its scheduler was."""
    scheduler = run.attrs.get("scheduler")
    if not isinstance(scheduler, Mapping) or "sigma" not in run.coords:
        return run
    values = log_snr(run["sigma"].values, scheduler).astype(np.float32)
    about = {"units": "1", "long_name": "log-SNR at the start of the step, 2 ln(alpha / sigma)"}
    return run.assign_coords(log_snr=("step", values, about))
