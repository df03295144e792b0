"""What LoRAs add to their layers, against the product of their matrices with what the layers are given."""

from collections import defaultdict
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks import record, verify
from stepscope.hooks.injections.lora import stream_of
from tests.models import PIPELINES
from tests.test_adapters import CALLS, DENOISERS, LAYERS, PROMPT, load, lora

TEXT = {
    "flux": "transformer_blocks.2.attn.add_q_proj",
    "sd": "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
}
BLOCKS = {"transformer_blocks": "double", "single_transformer_blocks": "single"}


@pytest.fixture(params=CALLS)
def family(request) -> str:
    return request.param


def loaded(family: str, **scales: float) -> Any:
    """A pipeline with LoRAs of random weights, each on the same layers and one that reads the text."""
    pipe, part = PIPELINES[family](), DENOISERS[family]
    for seed, name in enumerate(scales):
        model = getattr(pipe, part)
        weights = lora(
            model, part, [TEXT[family]] if seed else [*LAYERS[family], TEXT[family]], seed
        )
        pipe.load_lora_weights(weights, adapter_name=name)
    pipe.set_adapters([*scales], [*scales.values()])
    return pipe


def call(pipe: Any, family: str, **more: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return pipe(PROMPT, generator=generator, output_type="np", **CALLS[family] | more).images


def block_of(path: str) -> str:
    words = path.split(".")
    if words[0] in BLOCKS:
        return f"{BLOCKS[words[0]]}.{int(words[1]):02d}"
    numbers = [f"{int(word):02d}" for word in words if word.isdigit()]
    return ".".join([words[0].split("_")[0], *numbers][: 4 if words[0] != "mid_block" else 3])


def seen_apart(model: Any, stack: ExitStack) -> dict[tuple[str, str, str], list[torch.Tensor]]:
    """(block, stream, LoRA) -> |s B A x|^2 and |W x|^2 in float64, of the first pass."""
    found: dict[tuple[str, str, str], list[torch.Tensor]] = defaultdict(list)
    seen: set[str] = set()

    def see(path: str, layer: Any, given: torch.Tensor) -> None:
        if path in seen:
            return
        seen.add(path)
        x, own = given.double(), layer.base_layer
        whole = x @ own.weight.double().T + (0 if own.bias is None else own.bias.double())
        for name, matrix in layer.lora_B.items():
            delta = (
                layer.scaling[name] * matrix.weight.double() @ layer.lora_A[name].weight.double()
            )
            parts = {stream_of(path): slice(None)}
            if path.startswith("single"):
                parts = {"text": slice(16), "image": slice(16, None)}
            for stream, tokens in parts.items():
                norms = [t[:, tokens].square().sum() for t in (x @ delta.T, whole)]
                found[block_of(path), stream, name].append(torch.stack(norms))

    for path, layer in model.named_modules():
        if hasattr(layer, "lora_B"):
            hook = layer.register_forward_pre_hook(
                lambda layer, args, path=path: see(path, layer, args[0])
            )
            stack.callback(hook.remove)
    return found


def test_it_is_the_product_of_its_matrices(family, tmp_path):
    pipe = loaded(family, ink=0.7, oil=2.0)
    with ExitStack() as stack:
        wanted = seen_apart(getattr(pipe, DENOISERS[family]), stack)
        plain = call(pipe, family)
    with record(pipe, tmp_path / "run.zarr"):
        recorded = call(pipe, family)
    assert plain.tobytes() == recorded.tobytes()
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert set(run.injection.values) == {f"{b}.{s}.lora:{n}" for b, s, n in wanted}
    for (block, stream, name), parts in wanted.items():
        added, base = torch.stack(parts).sum(0).sqrt().tolist()
        value = run.contribution.sel(injection=f"{block}.{stream}.lora:{name}")
        np.testing.assert_allclose(value.isel(sample=0, step=0, branch=0), added / base, rtol=1e-5)
    assert np.isfinite(run.contribution).all()


def test_a_call_may_scale_it_and_one_that_is_off_adds_nothing(tmp_path):
    pipe = loaded("flux", ink=0.7, oil=2.0)
    with record(pipe, tmp_path / "run.zarr"):
        call(pipe, "flux")
        call(pipe, "flux", joint_attention_kwargs={"scale": 0.5})
        pipe.set_adapters(["ink"], [0.7])
        call(pipe, "flux")
        pipe.disable_lora()
        call(pipe, "flux")
    run = xr.open_zarr(tmp_path / "run.zarr").load().isel(branch=0)
    first = run.contribution.sel(injection="double.00.image.lora:ink").isel(step=0)
    np.testing.assert_allclose(first[1], first[0] / 2, rtol=1e-5)
    ink, oil = (
        run.contribution[:, :, run.injection_adapter == f"lora:{n}"] for n in ("ink", "oil")
    )
    for part, on in ((ink, 3), (oil, 2)):
        assert (part[:on] > 0).all()
        assert (part[on:] == 0).all()


def test_one_that_was_fused_is_a_part_of_the_weights(tmp_path):
    pipe = loaded("flux", ink=0.7)
    pipe.fuse_lora(components=["transformer"])
    with record(pipe, tmp_path / "run.zarr"):
        call(pipe, "flux")
    assert "contribution" not in xr.open_zarr(tmp_path / "run.zarr")


def test_a_run_whose_first_call_was_without_says_what_it_leaves_out(tmp_path):
    pipe = PIPELINES["flux"]()
    with record(pipe, tmp_path / "run.zarr"):
        call(pipe, "flux")
        load(pipe, "flux", "ink")
        with pytest.warns(UserWarning, match="no place for what lora:ink adds"):
            call(pipe, "flux")
    run = xr.open_zarr(tmp_path / "run.zarr")
    assert run.sizes["sample"] == 2
    assert "contribution" not in run


def test_verify_switches_each_off(family):
    pipe = loaded(family, ink=0.7, oil=2.0)
    findings = verify(pipe, lambda: call(pipe, family))
    assert [one.claim for one in findings if not one.holds] == []
    (claim,) = [one for one in findings if "contribution" in one.claim]
    assert claim.detail.startswith({"flux": "6 ", "sd": "4 "}[family])
