"""Where the seconds of a run went, and how many steps' worth is spent outside the steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.metric import Metric, Quantity

PARTS = ("face", "text", "adapter", "denoiser", "vae", "total")


@dataclass(frozen=True)
class Latency(Metric):
    """Wall time of a sample's batch by part, from what the run recorded."""

    name: ClassVar[str] = "latency"
    reads: ClassVar[tuple[str, ...]] = ("stage_seconds", "step_seconds")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        return {
            "latency_seconds": Quantity(
                ("part",),
                "float64",
                "s",
                "wall time of the batch that the sample was in, by part; adapter and denoiser are "
                "parts of the steps, total is face, text, all steps and vae; NaN where not measured",
                "lower is better",
            ),
            "fixed_cost_steps": Quantity(
                (),
                "float64",
                "1",
                "wall time outside the steps (face, text, vae) over the median wall time of a step",
                "lower is better",
            ),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {"part": ("part", list(PARTS))}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {}

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        stages, steps = samples["stage_seconds"], samples["step_seconds"].values
        parts = np.stack([stages.sel(stage=part).values for part in PARTS[:-1]], -1)
        outside = np.nansum([parts[:, PARTS.index(p)] for p in ("face", "text", "vae")], 0)
        return {
            "latency_seconds": np.column_stack([parts, outside + steps.sum(-1)]),
            "fixed_cost_steps": outside / np.median(steps, -1),
        }
