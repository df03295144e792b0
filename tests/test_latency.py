"""Latency is the recorded stages and steps, added up as the docstring says."""

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.metrics.latency import PARTS, Latency
from stepscope.hooks.vocabulary import STAGES


def timed(stages: list[float], steps: list[float]) -> xr.Dataset:
    return xr.Dataset(
        {"stage_seconds": (("sample", "stage"), [stages]), "step_seconds": (("sample", "step"), [steps])},
        coords={"stage": list(STAGES)},
    )  # fmt: skip


def test_the_total_counts_what_is_in_the_steps_once() -> None:
    found = Latency()(timed([0.5, 0.1, 0.8, 3.0, 0.4], [2.0, 1.0, 1.0, 1.0]))
    seconds = dict(zip(PARTS, found["latency_seconds"][0], strict=True))
    assert seconds == pytest.approx(
        {"face": 0.5, "text": 0.1, "adapter": 0.8, "denoiser": 3.0, "vae": 0.4, "total": 6.0}
    )
    assert found["fixed_cost_steps"] == pytest.approx(
        [1.0]
    )  # the first step's warming up is no cost


def test_a_stage_that_was_not_measured_is_missing_and_costs_nothing() -> None:
    found = Latency()(timed([np.nan, 0.1, np.nan, 3.0, 0.4], [1.0, 1.0]))
    assert np.isnan(found["latency_seconds"][0, PARTS.index("face")])
    assert found["latency_seconds"][0, PARTS.index("total")] == pytest.approx(2.5)
    assert found["fixed_cost_steps"] == pytest.approx([0.5])
