"""What the adapter adds after a block, over what it is added to: seen between the blocks themselves."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks import record
from tests.cases import CASES, Case

WITH_RESIDUALS = [CASES[n] for n in ("flux_controlnet_cfg", "infusenet", "infusenet_cfg")]


def between_blocks(case: Case, path: Any, **call: Any) -> tuple[xr.Dataset, np.ndarray]:
    """A run, and |next block's input - block's output| / |output| of the image tokens, in float64.

    (sample, step, branch, block). The last block's sum goes into `norm_out`.
    """
    model = case.denoiser
    blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
    outputs: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(record(case.pipe, path))
        for i, block in enumerate(blocks):
            after = block.register_forward_hook(
                lambda module, args, output: outputs.append(output[1].double())
            )
            stack.callback(after.remove)
            if i:
                before = block.register_forward_pre_hook(
                    lambda module, args, kwargs: inputs.append(kwargs["hidden_states"].double()),
                    with_kwargs=True,
                )
                stack.callback(before.remove)
        last = model.norm_out.register_forward_pre_hook(
            lambda module, args: inputs.append(args[0].double())
        )
        stack.callback(last.remove)
        case(seeds=(0, 1), **call)
    ratios = [
        (x - h).norm(dim=(1, 2)) / h.norm(dim=(1, 2)) for h, x in zip(outputs, inputs, strict=True)
    ]
    seen = torch.stack(ratios).unflatten(0, (-1, case.branches, len(blocks)))
    return xr.open_zarr(path).load(), seen.permute(3, 0, 1, 2).numpy()


@pytest.mark.parametrize("case", WITH_RESIDUALS, ids=lambda case: case.name)
def test_contribution_is_what_is_added_between_the_blocks(case, tmp_path):
    run, seen = between_blocks(case, tmp_path / "run.zarr")
    assert (seen > 0.01).all()
    # float32 sums h + r, and the difference is taken back from them.
    np.testing.assert_allclose(run.contribution, seen, rtol=1e-4)


def test_contribution_is_linear_in_the_scale(tmp_path):
    case = CASES["infusenet"]
    ratios = {}
    for scale in (1.0, 0.25):
        run, seen = between_blocks(
            case, tmp_path / f"{scale}.zarr", controlnet_conditioning_scale=scale
        )
        np.testing.assert_allclose(run.contribution, seen, rtol=1e-3)
        ratios[scale] = run.contribution[:, 0, 0, 0]  # before anything has moved apart
    np.testing.assert_allclose(ratios[0.25], ratios[1.0] / 4, rtol=1e-5)


def test_contribution_is_zero_where_the_adapter_is_silent(tmp_path):
    """Outside its window InfuseNet is not run: nothing is added, and its own norms are missing."""
    run, seen = between_blocks(
        CASES["infusenet"], tmp_path / "run.zarr", steps=4, control_guidance_end=0.5
    )
    np.testing.assert_allclose(run.contribution, seen, rtol=1e-4)
    np.testing.assert_array_equal(run.contribution[:, 2:], 0)
    missing = run.adapter_attention_norm.sel(stream=["image", "identity"]).isnull()
    assert missing.all(["sample", "adapter_block", "stream"]).values.tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert not missing[:, :2].any()


def test_adapter_that_never_ran_is_recorded_as_missing(tmp_path):
    with record(CASES["infusenet"].pipe, tmp_path / "run.zarr"):
        CASES["infusenet"](controlnet_conditioning_scale=0.0)
    run = xr.open_zarr(tmp_path / "run.zarr")
    np.testing.assert_array_equal(run.contribution, 0)
    assert run.adapter_attention_norm.isnull().all()
    assert run.done.all()


def test_there_is_no_contribution_without_adapter(recorded):
    for name in ("flux", "sd_cfg"):
        assert "contribution" not in recorded(CASES[name]).run
