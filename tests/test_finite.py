"""Numbers that are not finite are stored as they are and told, and cost no image of the call."""

from typing import Any

import numpy as np
import pytest
import torch

from stepscope.hooks import Capture, StepscopeWarning, record
from tests.cases import CASES
from tests.small import opened


def spoiling(name: str, value: float, at: int) -> dict[str, Any]:
    """A callback that puts the value into one sample's latents after step 0, or into a bias for all."""

    def latents(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        made = values["latents"].clone()
        if step == 0:
            made[at].view(-1)[5] = value
        return {"latents": made}

    def bias(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            part = getattr(pipe, "transformer", None) or pipe.unet
            part.get_submodule(name).bias.data[3] = value
        return {}

    return {"callback_on_step_end": bias if name else latents}


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("name", "first", "path"),
    [
        ("flux", "residual_norm of double.01", "transformer_blocks.1.ff.net.2"),
        ("flux_cfg", "residual_norm of single.03", "single_transformer_blocks.3.proj_out"),
        (
            "sd_cfg",
            "residual_norm of mid.00.00",
            "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
        ),
        ("infusenet", "x0", "proj_out"),
    ],
)
def test_the_first_variable_block_and_step_that_are_not_finite_are_named(
    name, first, path, value, tmp_path
):
    case = CASES[name]
    bias = case.denoiser.get_submodule(path).bias
    good = bias.data.clone()
    try:
        with record(case.pipe, tmp_path / "run.zarr"):
            with pytest.warns(StepscopeWarning, match=f"first in batch place 0: {first} at step 1"):
                case(**spoiling(path, value, 0))
            bias.data.copy_(good)
            case()
    finally:
        bias.data.copy_(good)
    run = opened(tmp_path / "run.zarr")
    assert run.done.values.tolist() == [True, True]
    told = run.not_finite[0].item().split(", ")
    assert told[0] == f"{first} at step 1"
    ends = ["x0 at step 1", "latents at step 2", "final_latents", "image"]
    assert [word for word in told if "_norm" not in word] == ends
    assert run.not_finite[1] == ""
    assert np.isfinite(run.x0[:, 0]).all()
    assert not np.isfinite(run.x0[0, 1:].values).all((1, 2, 3)).any()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["flux_cfg", "sdxl_cfg"])
def test_one_sample_that_is_not_finite_costs_the_others_nothing(name, value, tmp_path):
    case, seeds = CASES[name], (0, 1, 2)
    spoil = spoiling("", value, 1)
    plain = case(seeds, **spoil)
    with record(case.pipe, tmp_path / "run.zarr", Capture(velocity=True)):
        with pytest.warns(StepscopeWarning, match="1 of 3 samples .* place 1: latents at step 1"):
            returned = case(seeds, **spoil)
    with record(case.pipe, tmp_path / "good.zarr", Capture(velocity=True)):
        case(seeds)
    np.testing.assert_array_equal(returned, plain)
    run, good = (opened(tmp_path / f"{name}.zarr") for name in ("run", "good"))
    assert run.done.all()
    assert (run.not_finite != "").values.tolist() == [False, True, False]
    assert good.not_finite.values.tolist() == ["", "", ""]
    for variable in ("latents", "x0", "final_latents", "residual_norm", "velocity", "image"):
        np.testing.assert_array_equal(run[variable][::2], good[variable][::2])
    assert np.isfinite(run.latents[1, 0]).all()
    before = run.latents[1, 1].values.ravel()
    np.testing.assert_array_equal(before[~np.isfinite(before)], [value])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # diffusers makes a PIL image
def test_an_image_that_is_not_finite_is_told_and_its_latents_are_kept(tmp_path):
    """In one of two samples the VAE overflows."""
    case = CASES["sd"]

    def overflow(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        output[1, 0, 0, 0] = torch.nan
        return output

    handle = case.pipe.vae.decoder.register_forward_hook(overflow)
    try:
        with record(case.pipe, tmp_path / "run.zarr"):
            with pytest.warns(StepscopeWarning, match=r"1 of 2 .*place 1: image\. .*the VAE"):
                returned = case((0, 1))
            with pytest.warns(StepscopeWarning, match=r"1 of 2 .*place 1: image\."):
                case((0, 1), output_type="pil")
    finally:
        handle.remove()
    assert np.isnan(returned[1]).any()
    run = opened(tmp_path / "run.zarr")
    assert run.not_finite.values.tolist() == ["", "image", "", "image"]
    assert run.done.all()
    assert np.isfinite(run.final_latents).all()
    np.testing.assert_array_equal(run.image[0], (returned[0] * 255).round())
    assert run.image[1, 0, 0, 0] == 0
