"""LoRAs in kohya's layout run as diffusers runs them; what diffusers would leave out is said or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file

from stepscope.probes.weights import meta
from tests.adapter_words import IP_ADAPTER, LAYERS, lora_file, unet_words
from tests.published import own_call

RANK, ALPHA = 2, 4.0


def kohya(
    path: Path,
    *,
    text: bool = False,
    denoiser: bool = True,
    dora: bool = False,
    more: tuple[str, ...] = (),
) -> Path:
    """A LoRA of random numbers for the reference's SD 1.5, as kohya's sd-scripts names its weights.

    text, denoiser: of the text encoder, and of the U-Net. more: layers that the backbone does not have.
    """
    model, draw = meta(UNet2DConditionModel, IP_ADAPTER / "sd15" / "unet"), torch.Generator()
    draw.manual_seed(0)
    encoder = json.loads((IP_ADAPTER / "sd15" / "text_encoder" / "config.json").read_text())
    width = encoder["hidden_size"]
    of_unet = LAYERS["sd15"] if denoiser else []
    layers = {f"unet_{one}": model.get_submodule(one).weight.shape for one in of_unet}
    layers |= {f"unet_{one}": (8, 8) for one in more}
    if text:
        start = "te_text_model.encoder.layers.0.self_attn"
        layers |= {f"{start}.{part}_proj": (width, width) for part in ("q", "out")}
    found = {}
    for name, (outside, inside) in layers.items():
        key = "lora_" + name.replace(".", "_")
        found[f"{key}.lora_down.weight"] = torch.randn(RANK, inside, generator=draw) * 0.2
        found[f"{key}.lora_up.weight"] = torch.randn(outside, RANK, generator=draw) * 0.2
        found[f"{key}.alpha"] = torch.tensor(ALPHA)
        if dora:
            found[f"{key}.dora_scale"] = torch.ones(outside, 1)
    save_file(found, path)
    return path


def words(path: Path, **changed: Any) -> list[str]:
    return unet_words("sd15", adapter="lora", adapter__path=path, adapter__scale=0.5, **changed)


@pytest.mark.parametrize("text", [False, True])
def test_it_runs_as_diffusers_runs_it(text, typed, tmp_path):
    path = kohya(tmp_path / "k.safetensors", text=text)
    answer = typed(words(path, true_cfg=4.0, out=tmp_path / "run.zarr"))
    assert answer.status == 0, answer.err
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    pipe: Any = StableDiffusionPipeline.from_pretrained(IP_ADAPTER / "sd15")
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="k")
    pipe.set_adapters(["k"], [0.5])
    made = own_call(pipe, run, 4.0)
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-4)
    told = json.loads(str(run.adapters.values[0]))
    assert {one["model"] for one in told} == {"unet", *(["text_encoder"] if text else [])}
    assert {one["scale"] for one in told} == {0.5}


def test_a_dora_of_kohya_is_refused(typed, tmp_path):
    answer = typed(words(kohya(tmp_path / "d.safetensors", dora=True)))
    assert answer.status == 2
    assert "is a DoRA in kohya's layout" in answer.line


def test_layers_that_the_backbone_lacks_are_told(typed, tmp_path):
    lost = "down_blocks.9.attentions.0.transformer_blocks.0.attn1.to_q"
    answer = typed([*words(kohya(tmp_path / "k.safetensors", more=(lost,))), "--dry"])
    assert answer.status == 0, answer.err
    (note,) = (line for line in answer.out.splitlines() if "runs without" in line)
    assert "attn1" in note
    whole = typed([*words(kohya(tmp_path / "whole.safetensors")), "--dry"])
    assert "runs without" not in whole.out


def test_two_at_once_are_the_sum_of_their_scales(typed, tmp_path):
    first, second = (lora_file(tmp_path, "sd15", seed) for seed in (0, 1))
    words = unet_words(
        "sd15", adapter="[lora,lora]", adapter__path=first, beside__lora__path=second
    )
    answer = typed([*words, "beside.lora.name=ink", f"out={tmp_path / 'run.zarr'}"])
    assert answer.status == 0, answer.err
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert {*run.injection_adapter.values} == {"lora:lora", "lora:ink"}
    pipe: Any = StableDiffusionPipeline.from_pretrained(IP_ADAPTER / "sd15")
    for name, path in (("lora", first), ("ink", second)):
        pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name=name)
    pipe.set_adapters(["lora", "ink"], [1.0, 1.0])
    made = own_call(pipe, run, 7.5)
    np.testing.assert_allclose(run.final_latents, made, rtol=0, atol=1e-4)


def test_one_of_text_encoders_alone_runs_as_diffusers_runs_it_and_says_what_it_is(typed, tmp_path):
    path = kohya(tmp_path / "k.safetensors", text=True, denoiser=False)
    plan = typed([*words(path), "--dry"])
    assert "is of text encoders alone: it adds nothing in a block" in plan.out
    answer = typed(words(path, true_cfg=4.0, out=tmp_path / "run.zarr"))
    assert answer.status == 0, answer.err
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert "contribution" not in run
    pipe: Any = StableDiffusionPipeline.from_pretrained(IP_ADAPTER / "sd15")
    bare = own_call(pipe, run, 4.0).numpy()
    pipe.load_lora_weights(str(tmp_path), weight_name=path.name, adapter_name="k")
    pipe.set_adapters(["k"], [0.5])
    np.testing.assert_allclose(run.final_latents, own_call(pipe, run, 4.0), rtol=0, atol=1e-4)
    assert np.abs(run.final_latents - bare).max() > 1e-2
    typed([])  # what the calls said
    late = typed([*words(path), "adapter.window=[0.5,1.0]"])
    assert "which run before the first step: leave adapter.window out" in late.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lcm-lora-sdv1-5.safetensors", "backbone.distillation=lcm"),
        ("Hyper-SD15-4steps-lora.safetensors", "backbone.distillation=hyper"),
    ],
)
def test_one_of_few_steps_is_no_adapter_under_the_backbones_own_schedule(
    name, told, typed, tmp_path
):
    path = kohya(tmp_path / name)
    answer = typed([*words(path), "--dry"])
    assert answer.status == 2
    assert told in answer.line
