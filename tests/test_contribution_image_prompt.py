"""What IP-Adapters add inside attentions: diffusers' own values, several at once, windows and edits."""

import json
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import StableDiffusionPipeline

from stepscope.hooks import Edit, Scale, edit, record, verify
from tests.every_pipeline_image_prompt import load_image_prompt
from tests.models import PIPELINES, REFERENCE

FOLDER = REFERENCE / "ip-adapter"
CASES = {one["name"]: one for one in json.loads((FOLDER / "cases.json").read_text())}


@cache
def values() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "reference.npz") as file:
        return {name: file[name] for name in file.files if name.startswith("sd15")}


def loaded(*adapters: str) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER / "sd15")
    pipe.set_progress_bar_config(disable=True)
    if adapters:
        names = list(adapters)
        pipe.load_ip_adapter(
            str(FOLDER), subfolder="adapters", weight_name=names, image_encoder_folder=None
        )
    return pipe


def called(pipe: Any, *names: str, steps: int = 0, **more: Any) -> np.ndarray:
    """A call with the pictures of some cases, of the first's size, prompt and noise."""
    case, known = CASES[names[0]], values()
    embeds = [
        torch.from_numpy(
            np.concatenate([known[f"{n}/negative_image_embeds"], known[f"{n}/image_embeds"]])
        )
        for n in names
    ]
    return pipe(
        case["prompt"],
        negative_prompt=case.get("negative"),
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        height=case["height"],
        width=case["width"],
        latents=torch.from_numpy(known[f"{names[0]}/initial_latents"]),
        ip_adapter_image_embeds=embeds,
        output_type="np",
        **more,
    ).images


def of_layers(name: str) -> dict[str, np.ndarray]:
    """Block -> |added| of the negative and the positive branch, (2,)."""
    found = {}
    for key, added in values().items():
        if key.startswith(f"{name}/contribution/"):
            layer = key.split("/")[2].split(".")
            numbers = ".".join(f"{int(part):02d}" for part in layer if part.isdigit())
            block = f"{layer[0].split('_')[0]}.{numbers}"
            found[block] = np.linalg.norm(added.reshape(2, -1).astype(float), axis=1)
            found[block] /= added.shape[1] ** 0.5  # as the stored norms: a root mean square
    return found


def added(run: xr.Dataset, adapter: str) -> dict[str, np.ndarray]:
    """What a run says of an adapter in its first step, undivided: contribution times |text|."""
    found = {}
    for place in run.injection.values[run.injection_adapter.values == adapter]:
        one = run.contribution.sel(injection=place)
        block = str(one.injection_block.values)
        text = run.attention_norm.sel(block=block, stream="text")
        both = (one * text).isel(sample=0, step=0)
        found[block] = both.sel(branch=["negative", "positive"]).values
    return found


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("sd15", "ip-adapter_sd15.bin"), ("sd15_plus", "ip-adapter-plus_sd15.bin")],
)
def test_it_is_what_diffusers_adds(name, adapter, tmp_path):
    pipe = loaded(adapter)
    pipe.set_ip_adapter_scale(CASES[name]["scale"])
    plain = called(pipe, name)
    with record(pipe, tmp_path / "run.zarr"):
        recorded = called(pipe, name)
    assert plain.tobytes() == recorded.tobytes()
    np.testing.assert_allclose(recorded[0], values()[f"{name}/image"], atol=1e-4)
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    found, wanted = added(run, "ip_adapter:0"), of_layers(name)
    assert [*found] == [b for b in run.block.values if b in wanted]
    assert found.keys() == wanted.keys()
    for block, norms in wanted.items():
        np.testing.assert_allclose(found[block], norms, rtol=2e-5, atol=1e-5, err_msg=block)


def test_of_two_adapters_each_has_its_own_part(tmp_path):
    """Linear in the scales: alone, one adds at its first attention what it adds there beside another."""
    both = ("ip-adapter_sd15.bin", "ip-adapter-plus_sd15.bin")
    pipe, parts = loaded(*both), {}
    for label, scales in (("both", [0.6, 0.5]), ("first", [0.6, 0.0]), ("second", [0.0, 0.5])):
        pipe.set_ip_adapter_scale(scales)
        with record(pipe, tmp_path / f"{label}.zarr"):
            called(pipe, "sd15", "sd15_plus")
        run = xr.open_zarr(tmp_path / f"{label}.zarr").load()
        parts[label] = [added(run, f"ip_adapter:{i}") for i in (0, 1)]
    block = "down.00.00.00"
    for i, label in enumerate(("first", "second")):
        np.testing.assert_allclose(parts["both"][i][block], parts[label][i][block], rtol=1e-4)
        assert all((norms == 0).all() for norms in parts[label][1 - i].values())
        assert all((norms > 0).all() for norms in parts["both"][i].values())


def test_a_scale_that_a_callback_sets_is_a_window(tmp_path):
    pipe = loaded("ip-adapter_sd15.bin")
    pipe.set_ip_adapter_scale(0.6)

    def off(pipe: Any, step: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            pipe.set_ip_adapter_scale(0.0)
        return {}

    with record(pipe, tmp_path / "run.zarr"):
        called(pipe, "sd15", callback_on_step_end=off)
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert (run.contribution[:, :2] > 0).all()
    assert (run.contribution[:, 2:] == 0).all()


def flux(*scales: float) -> tuple[Any, dict[str, Any]]:
    """A FLUX pipeline with several IP-Adapters of the same weights, and its call's arguments."""
    pipe = PIPELINES["flux"]()
    model = pipe.transformer
    load_image_prompt(model)
    for processor in model.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = list(scales)
            for part in ("to_k_ip", "to_v_ip"):
                setattr(
                    processor, part, torch.nn.ModuleList([*getattr(processor, part)] * len(scales))
                )
    projection = model.encoder_hid_proj
    projection.image_projection_layers = torch.nn.ModuleList(
        [*projection.image_projection_layers] * len(scales)
    )
    generator = torch.Generator().manual_seed(3)
    embeds = [torch.randn(1, 1, 32, generator=generator) for _ in scales]
    return pipe, {
        "prompt": "a man",
        "height": 32,
        "width": 48,
        "num_inference_steps": 2,
        "max_sequence_length": 16,
        "output_type": "np",
        "ip_adapter_image_embeds": embeds,
        "negative_ip_adapter_image_embeds": embeds,
    }


def test_flux_adds_it_after_the_double_blocks(tmp_path):
    """Two adapters of the same weights: the parts are as their scales are, and one that is off adds 0."""
    pipe, call = flux(0.8, 0.2, 0.0)
    third: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    call["ip_adapter_image_embeds"] = [call["ip_adapter_image_embeds"][0]] * 3
    block = pipe.transformer.transformer_blocks[0]
    with record(pipe, tmp_path / "run.zarr"):
        hooks = [
            block.attn.register_forward_hook(lambda m, a, output: third.append(output[2].double())),
            block.register_forward_hook(lambda m, a, output: images.append(output[1].double())),
        ]
        made = pipe(**call, generator=torch.Generator().manual_seed(0)).images
        for hook in hooks:
            hook.remove()
    assert (
        pipe(**call, generator=torch.Generator().manual_seed(0)).images.tobytes() == made.tobytes()
    )
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    names = [f"double.00.image.ip_adapter:{i}" for i in range(3)]
    found = run.contribution.isel(sample=0, step=0, branch=0).sel(injection=names).values
    whole = (third[0].norm() / (images[0] - third[0]).norm()).item()
    np.testing.assert_allclose(found, [0.8 * whole, 0.2 * whole, 0.0], rtol=1e-4)
    blocks = {str(name) for name in run.injection_block.values}
    assert blocks == {"double.00", "double.01", "double.02"}


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_verify_switches_each_off(family):
    generator = torch.Generator()
    if family == "flux":
        pipe, call = flux(0.7, 0.3)
        findings = verify(pipe, lambda: pipe(**call, generator=generator.manual_seed(0)).images)
    else:
        pipe = loaded("ip-adapter_sd15.bin", "ip-adapter-plus_sd15.bin")
        pipe.set_ip_adapter_scale([0.6, 0.5])
        findings = verify(pipe, lambda: called(pipe, "sd15", "sd15_plus"))
    assert [one.claim for one in findings if not one.holds] == []
    assert any("contribution" in one.claim for one in findings)


def test_the_edge_of_a_block_is_its_scale(tmp_path):
    """Zeros at `<block>.adapter` are a scale of 0 for that block alone."""
    pipe = loaded("ip-adapter_sd15.bin")
    pipe.set_ip_adapter_scale(0.6)
    chosen = "down.01.00.00"
    with record(pipe, tmp_path / "edited.zarr"), edit(pipe, Edit(f"{chosen}.adapter", Scale(0.0))):
        edited = called(pipe, "sd15")
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor"
    pipe.unet.attn_processors[name].scale = [0.0]
    with record(pipe, tmp_path / "scaled.zarr"):
        scaled = called(pipe, "sd15")
    np.testing.assert_allclose(edited, scaled, atol=1e-5)
    ratios = [
        xr.open_zarr(tmp_path / f"{n}.zarr").load().contribution for n in ("edited", "scaled")
    ]
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-3, atol=1e-6)
    off = (ratios[0] == 0).all(("sample", "step", "branch"))
    assert ratios[0].injection_block[off].values.tolist() == [chosen]


def test_the_edge_of_a_flux_block_is_its_scale():
    pipe, call = flux(0.7)
    with edit(pipe, Edit("double.01.adapter", Scale(0.0))):
        edited = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    pipe.transformer.transformer_blocks[1].attn.processor.scale = [0.0]
    scaled = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    assert edited.tobytes() == scaled.tobytes()


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_an_edit_of_its_part_is_a_scale_and_is_recorded_so(factor, tmp_path):
    pipe = loaded("ip-adapter_sd15.bin")
    ratios = {}
    for label, scale, change in (
        ("edited", 0.6, edit(pipe, Edit("*.attention.image_prompt", Scale(factor)))),
        ("scaled", 0.6 * factor, nullcontext()),
    ):
        pipe.set_ip_adapter_scale(scale)
        with record(pipe, tmp_path / f"{label}.zarr"), change:
            called(pipe, "sd15")
        ratios[label] = xr.open_zarr(tmp_path / f"{label}.zarr").contribution.values
    np.testing.assert_allclose(ratios["edited"], ratios["scaled"], rtol=1e-3, atol=1e-6)
