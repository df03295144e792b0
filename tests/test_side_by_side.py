"""Recordings may be nested and come and go, and the pipeline afterwards is the one before."""

from contextlib import ExitStack
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks import record
from stepscope.hooks.errors import RunError
from tests.cases import CASES, PROMPT, wiring
from tests.small import SMALL, opened, seeded


@pytest.mark.parametrize("first_out", [0, 1])
def test_recordings_may_be_nested_and_left_in_any_order(sd, first_out, tmp_path):
    before = wiring(sd), type(sd)
    stacks = [ExitStack(), ExitStack()]
    for i, stack in enumerate(stacks):
        stack.enter_context(record(sd, tmp_path / f"{i}.zarr"))
    images = sd(PROMPT, generator=seeded(0), **SMALL).images
    stacks[first_out].close()
    sd(PROMPT, generator=seeded(0), **SMALL)
    stacks[1 - first_out].close()
    assert (wiring(sd), type(sd)) == before
    assert sd(PROMPT, generator=seeded(0), **SMALL).images.tobytes() == images.tobytes()
    runs = [opened(tmp_path / f"{i}.zarr") for i in range(2)]
    assert runs[first_out].sizes["sample"] == 1
    assert runs[1 - first_out].sizes["sample"] == 2
    names = ["latents", "x0", "attention_norm", "residual_norm", "massive_share", "image"]
    for run in runs:
        xr.testing.assert_equal(run[names].isel(sample=0), runs[0][names].isel(sample=0))


def test_inference_mode_may_come_and_go(sd, tmp_path):
    with record(sd, tmp_path / "run.zarr"):
        with torch.inference_mode():
            sd(PROMPT, generator=seeded(0), **SMALL)
        sd(PROMPT, generator=seeded(0), **SMALL)
    run = opened(tmp_path / "run.zarr")
    np.testing.assert_array_equal(run.residual_norm[0], run.residual_norm[1])


def test_a_refused_call_leaves_the_attention_processors_as_they_were(tmp_path):
    parts = CASES["sd"].pipe.components
    pipe: Any = diffusers.StableDiffusionPAGPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    with record(pipe, tmp_path / "run.zarr"):
        pipe(PROMPT, pag_scale=0.0, guidance_scale=1.0, **SMALL)
    before = dict(pipe.unet.attn_processors)
    with record(pipe, tmp_path / "run.zarr"):
        with pytest.raises(RunError, match="positive, perturbed"):
            pipe(PROMPT, pag_scale=3.0, guidance_scale=1.0, **SMALL)
    assert dict(pipe.unet.attn_processors) == before
