"""Of each call the run says which adapters are active: their names, scales and weights."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from peft import LoKrConfig, LoraConfig

from stepscope.hooks import record
from stepscope.hooks.errors import RunError
from tests.cases import PROMPT
from tests.every_pipeline_image_prompt import load_image_prompt
from tests.models import PIPELINES
from tests.oracle_watch import Watch

CALLS: dict[str, dict[str, Any]] = {
    "flux": {"height": 32, "width": 48, "num_inference_steps": 2, "max_sequence_length": 16},
    "sd": {"height": 16, "width": 24, "num_inference_steps": 2, "guidance_scale": 1.0},
}
DENOISERS = {"flux": "transformer", "sd": "unet"}
LAYERS = {
    "flux": [
        "transformer_blocks.0.attn.to_q",
        "transformer_blocks.1.ff.net.0.proj",
        "single_transformer_blocks.1.attn.to_v",
    ],
    "sd": [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    ],
}


@pytest.fixture(params=CALLS)
def family(request) -> str:
    return request.param


def lora(model: Any, prefix: str, layers: list[str], seed: int = 0) -> dict[str, Any]:
    """A LoRA's file as diffusers writes it: two matrices of rank 2 a layer."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name in layers:
        outside, inside = model.get_submodule(name).weight.shape
        for part, shape in (("A", (2, inside)), ("B", (outside, 2))):
            found[f"{prefix}.{name}.lora_{part}.weight"] = torch.randn(shape, generator=generator)
    return found


def load(pipe: Any, family: str, name: str, seed: int = 0) -> None:
    part = DENOISERS[family]
    weights = lora(getattr(pipe, part), part, LAYERS[family], seed)
    pipe.load_lora_weights(weights, adapter_name=name)


def call(pipe: Any, family: str) -> None:
    pipe(PROMPT, generator=torch.Generator().manual_seed(0), **CALLS[family])


def adapters_of(path: Any) -> list[list[dict[str, Any]]]:
    return [json.loads(text) for text in xr.open_zarr(path).adapters.values]


def recorded(
    path: Any, family: str, *changes: Callable[[Any], object]
) -> list[list[dict[str, Any]]]:
    """What one recording says of a call before any change of its pipeline, and of one after each."""
    pipe = PIPELINES[family]()
    with record(pipe, path):
        for change in (lambda pipe: None, *changes):
            change(pipe)
            call(pipe, family)
    return adapters_of(path)


def test_each_call_has_the_name_scale_and_weights_of_its_loras(family, tmp_path):
    none, whole, half, other, both, off, on = recorded(
        tmp_path / "run.zarr",
        family,
        lambda pipe: load(pipe, family, "ink"),
        lambda pipe: pipe.set_adapters(["ink"], [0.5]),
        lambda pipe: (load(pipe, family, "oil", seed=1), pipe.set_adapters(["oil"], [0.5])),
        lambda pipe: pipe.set_adapters(["ink", "oil"], [0.5, 2.0]),
        lambda pipe: pipe.disable_lora(),
        lambda pipe: pipe.enable_lora(),
    )
    assert none == off == []
    assert on == both
    assert [(one["name"], one["scale"]) for one in whole + half] == [("ink", 1.0), ("ink", 0.5)]
    assert [(one["name"], one["scale"]) for one in both] == [("ink", 0.5), ("oil", 2.0)]
    assert {(one["kind"], one["model"]) for one in both} == {("lora", DENOISERS[family])}
    assert whole[0]["fingerprint"] == half[0]["fingerprint"] == both[0]["fingerprint"]
    assert other[0]["fingerprint"] == both[1]["fingerprint"] != both[0]["fingerprint"]


def test_a_lora_that_is_unloaded_leaves_the_model_and_its_numbers_as_they_were(family, tmp_path):
    path = tmp_path / "run.zarr"
    of = recorded(
        path,
        family,
        lambda pipe: load(pipe, family, "ink"),
        lambda pipe: pipe.unload_lora_weights(),
    )
    assert [len(adapters) for adapters in of] == [0, 1, 0]
    run = xr.open_zarr(path).load()
    for name in ("latents", "residual_norm", "attention_norm", "image"):
        np.testing.assert_array_equal(run[name][2], run[name][0])
    assert not np.array_equal(run.latents[1], run.latents[0])


def test_numbers_under_a_lora_are_those_of_plain_hooks(family, tmp_path):
    pipe = PIPELINES[family]()
    load(pipe, family, "ink")
    pipe.set_adapters(["ink"], [0.7])
    watch = Watch(pipe)
    with watch.on():
        call(pipe, family)
    with record(pipe, tmp_path / "run.zarr"):
        call(pipe, family)
    run = xr.open_zarr(tmp_path / "run.zarr").load().isel(sample=0)
    for step, seen in enumerate(watch.steps):
        for (quantity, block), streams in seen.passes[0].outputs.items():
            norm = streams["image"].double().square().sum(-1).mean().sqrt().item()
            stored = run[f"{quantity}_norm"].sel(block=block, stream="image", branch="positive")
            assert stored[step].item() == pytest.approx(norm, rel=2e-6), (quantity, block, step)


def test_a_lora_that_is_fused_makes_another_model(family, tmp_path):
    """Its weights are written into the model's, where torch does not count that it wrote."""
    pipe = PIPELINES[family]()
    with record(pipe, tmp_path / "run.zarr"):
        load(pipe, family, "ink")
        call(pipe, family)
        pipe.fuse_lora()
        with pytest.raises(RunError, match=f"another models: {DENOISERS[family]}"):
            call(pipe, family)
        pipe.unload_lora_weights()
        with pytest.raises(RunError, match=f"another models: {DENOISERS[family]}"):
            call(pipe, family)
    assert [len(adapters) for adapters in adapters_of(tmp_path / "run.zarr")] == [1]
    with record(pipe, tmp_path / "fused.zarr"):
        call(pipe, family)
    assert adapters_of(tmp_path / "fused.zarr") == [[]]


def test_a_lora_of_a_text_encoder_is_adapters_of(tmp_path):
    def load_words(pipe: Any) -> None:
        encoder = pipe.text_encoder
        layers = [name for name, _ in encoder.named_modules() if name.endswith("q_proj")]
        pipe.load_lora_weights(lora(encoder, "text_encoder", layers), adapter_name="words")

    before, after = recorded(tmp_path / "run.zarr", "sd", load_words)
    assert before == []
    assert [(one["model"], one["name"], one["scale"]) for one in after] == [
        ("text_encoder", "words", 1.0)
    ]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (LoraConfig(r=4, lora_alpha=2, use_rslora=True, target_modules=["to_q"]), "lora"),
        (LoraConfig(r=4, lora_alpha=2, use_dora=True, target_modules=["to_q"]), "lora"),
        (LoKrConfig(r=4, alpha=2, target_modules=["to_q"]), "lokr"),
    ],
    ids=["rslora", "dora", "lokr"],
)
def test_scales_are_those_that_were_set_whatever_the_rank(config, kind, tmp_path):
    def add(pipe: Any) -> None:
        pipe.unet.add_adapter(config, adapter_name="style")
        with torch.no_grad():
            for name, weight in pipe.unet.named_parameters():
                if "lora_B" in name or "lokr_" in name:
                    weight.fill_(0.1)

    path = tmp_path / "run.zarr"
    none, one, half = recorded(
        path, "sd", add, lambda pipe: pipe.unet.set_adapters(["style"], [0.5])
    )
    assert none == []
    assert [(a["kind"], a["name"], a["scale"]) for a in one + half] == [
        (kind, "style", 1.0),
        (kind, "style", 0.5),
    ]
    latents = xr.open_zarr(path).latents.values
    assert len({of.tobytes() for of in latents}) == 3


def test_layers_with_scales_of_their_own_are_adapters_of(tmp_path):
    (_, found) = recorded(
        tmp_path / "run.zarr",
        "sd",
        lambda pipe: (
            load(pipe, "sd", "ink"),
            pipe.set_adapters(["ink"], [{"unet": {"down": 0.25, "mid": 0.75}}]),
        ),
    )
    assert [one["scale"] for one in found] == [[0.25, 0.75]]


def test_an_image_prompt_is_recorded_by_its_scale_and_weights(tmp_path):
    pipe = PIPELINES["sd"]()
    embeds = torch.rand(1, 1, 32, generator=torch.Generator().manual_seed(0))
    load_image_prompt(pipe.unet, scale=0.7)
    with record(pipe, tmp_path / "run.zarr"):
        for scale in (0.7, 0.3):
            pipe.set_ip_adapter_scale(scale)
            pipe(PROMPT, ip_adapter_image_embeds=[embeds], **CALLS["sd"])
    first, second = adapters_of(tmp_path / "run.zarr")
    assert [one["scale"] for one in first + second] == [0.7, 0.3]
    assert {(one["kind"], one["model"]) for one in first + second} == {("ip_adapter", "unet")}
    assert first[0]["fingerprint"] == second[0]["fingerprint"]
