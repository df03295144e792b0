"""Edits of what an adapter adds: one use at a time, and apart from the model's own values."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks import Edit, Scale, edit, record
from tests.cases import CASES, PROMPT
from tests.every_pipeline_image_prompt import load_image_prompt
from tests.models import PIPELINES
from tests.test_edit import PAIR, at, watched


@pytest.mark.parametrize("name", ["flux_controlnet_cfg", "infusenet", "sd_controlnet_cfg"])
def test_an_adapter_that_is_edited_away_is_an_adapter_at_scale_zero(name):
    """diffusers adds zeros then; InfuseNet is not even run."""
    case = CASES[name]
    with edit(case.pipe, Edit("*.adapter", Scale(0.0))):
        edited = case(**PAIR)
    np.testing.assert_array_equal(edited, case(**PAIR, controlnet_conditioning_scale=0.0))
    assert (edited != case(**PAIR)).any()


def test_a_use_is_edited_alone_although_blocks_share_it(recorded, tmp_path):
    """The ControlNet has 1 double and 2 single blocks, the transformer 3 and 5."""
    case = CASES["flux_controlnet"]
    with (
        record(case.pipe, tmp_path / "run.zarr"),
        edit(case.pipe, Edit(("double.01.adapter", "single.03.adapter"), Scale(0.0), steps=(1, 2))),
    ):
        case(**PAIR)
    run, then = xr.open_zarr(tmp_path / "run.zarr").load(), recorded(case).run
    now = run.contribution.isel(branch=0)
    assert [(now[:, step] == 0).all("sample").values.tolist() for step in range(3)] == [
        [False] * 8,
        [False, True, False, False, False, False, True, False],
        [False] * 8,
    ]
    np.testing.assert_array_equal(now[:, 0], then.contribution.isel(branch=0)[:, 0])
    # what is added before the use is what it was, and after it the stream is another
    np.testing.assert_array_equal(now[:, 1, 0], then.contribution.isel(branch=0)[:, 1, 0])
    assert (now[:, 1, 2] != then.contribution.isel(branch=0)[:, 1, 2]).all()


def test_a_residual_is_what_the_hook_of_one_block_would_leave_out():
    """Of one use, by the arithmetic of FluxTransformer2DModel: the block's output goes on as it is."""
    case = CASES["flux_controlnet"]
    site = "double.01.residual.image"
    seen = watched(case, Edit("double.01.adapter", Scale(0.0)))
    given: list[torch.Tensor] = []
    block = case.denoiser.transformer_blocks[2]
    hook = block.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["hidden_states"].clone()), with_kwargs=True
    )
    with edit(case.pipe, Edit("double.01.adapter", Scale(0.0))):
        case(**PAIR)
    hook.remove()
    for step in range(3):
        torch.testing.assert_close(given[step], at(seen, step, site), rtol=0, atol=0)


@pytest.mark.parametrize("family", ["flux", "sd"])
def test_an_image_prompt_is_edited_apart_from_the_text(family, tmp_path):
    pipe = PIPELINES[family]()
    model = pipe.transformer if family == "flux" else pipe.unet
    call: dict[str, Any] = (
        {"height": 32, "width": 48}
        if family == "flux"
        else {
            "height": 16,
            "width": 24,
        }
    )
    embeds = [torch.rand(1, 1, 32, generator=torch.Generator().manual_seed(1))]
    if family == "flux":
        call["negative_ip_adapter_image_embeds"] = embeds
    call |= {
        "ip_adapter_image_embeds": embeds,
        "guidance_scale": 1.0,
        "num_inference_steps": 2,
        "output_type": "np",
    }

    def made() -> np.ndarray:
        seed = torch.Generator().manual_seed(0)
        return pipe(PROMPT, generator=seed, **call).images

    load_image_prompt(model)
    loud = made()
    with edit(pipe, Edit("*.attention.image_prompt", Scale(1.0))):
        np.testing.assert_array_equal(made(), loud)
    with edit(pipe, Edit("*.attention.image_prompt", Scale(0.0))):
        with record(pipe, tmp_path / "run.zarr"):
            silent = made()
    with edit(pipe, Edit("*.attention.text", Scale(0.0))):
        with record(pipe, tmp_path / "other.zarr"):
            made()
    run, other = (xr.open_zarr(tmp_path / name).load() for name in ("run.zarr", "other.zarr"))
    prompts = run.attention_norm.sel(stream="image_prompt")
    assert not np.nan_to_num(prompts).any()
    assert (run.attention_norm.sel(stream="text") > 0).all()
    assert not np.nan_to_num(other.attention_norm.sel(stream="text")).any()
    assert (other.attention_norm.sel(stream="image_prompt").max("block") > 0).all()
    for processor in model.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [0.0]
    np.testing.assert_allclose(silent, made(), rtol=0, atol=1e-5)
    assert np.abs(silent - loud).max() > 1e-3


@pytest.mark.parametrize("zero_first", [True, False])
def test_edits_of_two_withs_change_one_site_in_their_order(zero_first):
    """The inner one is given what the outer one made: zeros, which do not mean that the adapter is off."""
    case = CASES["infusenet"]
    zero, double = Edit("*.adapter", Scale(0.0)), Edit("*.adapter", Scale(2.0))
    outer, inner = (zero, double) if zero_first else (double, zero)
    with edit(case.pipe, outer), edit(case.pipe, inner):
        nested = case(**PAIR)
    np.testing.assert_array_equal(nested, case(**PAIR, controlnet_conditioning_scale=0.0))
