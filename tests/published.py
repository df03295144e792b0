"""What a run is compared with where a published implementation made the same pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr


def trajectory(run: xr.Dataset) -> np.ndarray:
    """Latents of the first sample after each step, (step, channel, y, x)."""
    return np.concatenate([run.latents.values[0, 1:], run.final_latents.values])


def assert_unet_run(run: xr.Dataset, published: Mapping[str, np.ndarray], name: str) -> None:
    """Latents, both passes and the picture of a case are the published ones."""
    np.testing.assert_allclose(trajectory(run), published[f"{name}/latents"][0], rtol=0, atol=1e-4)
    negative, positive = published[f"{name}/noise"]
    passes = run.velocity.sel(branch=["negative", "positive"]).values[0]
    np.testing.assert_allclose(passes, np.stack([negative, positive], 1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(run.image[0] / 255, published[f"{name}/image"], atol=1 / 255)


def own_call(pipe: Any, run: xr.Dataset, guidance: float, **more: Any) -> torch.Tensor:
    """Final latents of diffusers' own pipeline from a run's noise, on the tiny U-Nets' prompt and steps."""
    return pipe(
        "a man portrait cinematic",
        guidance_scale=guidance,
        num_inference_steps=3,
        height=64,
        width=64,
        latents=torch.from_numpy(run.latents.values[:, 0]),
        output_type="latent",
        **more,
    ).images
