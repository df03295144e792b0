"""Calls of a few steps of tiny pipelines, and the runs that they make."""

from typing import Any

import pytest
import torch
import xarray as xr

SMALL = {"height": 16, "width": 24, "num_inference_steps": 3, "output_type": "np"}
FLUX_SMALL = {"height": 32, "width": 48, "num_inference_steps": 3, "max_sequence_length": 16}
NO_STEP: Any = {"callback_on_step_end": lambda *args: pytest.fail("a step ended")}
"""For a call that is to be refused before its first step has ended."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def opened(path: Any) -> xr.Dataset:
    return xr.open_zarr(path).load()
