"""What is read at a site is what plain hooks of the test's own see there."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

from stepscope.hooks import Capture, record
from stepscope.hooks.families import blocks_of
from stepscope.hooks.sites import select
from tests.cases import CASES, FLUX_CALL, PROMPT, Case
from tests.family_modules import MODULES, At, Modules, length, pads
from tests.models import PIPELINES

TEXT_TOKENS = FLUX_CALL["max_sequence_length"]
IDENTITY_TOKENS = 5  # tests/models.py, infusenet


def flux_modules(network: Any, context: str, tokens: int) -> Modules:
    """Read off diffusers' FLUX blocks: what stands where in the outputs of each kind."""
    found: Modules = {}
    for i, block in enumerate(network.transformer_blocks):
        name = f"double.{i:02d}"
        found[name, "attention", "image"] = At(block.attn, lambda out: out[0])
        found[name, "attention", context] = At(block.attn, lambda out: out[1])
        found[name, "residual", "image"] = At(block, lambda out: out[1])
        found[name, "residual", context] = At(block, lambda out: out[0])
    for i, block in enumerate(network.single_transformer_blocks):
        name = f"single.{i:02d}"
        found[name, "attention", "image"] = At(block.attn, lambda out: out[:, tokens:])
        found[name, "attention", context] = At(block.attn, lambda out: out[:, :tokens])
        found[name, "residual", "image"] = At(block, lambda out: out[1])
        found[name, "residual", context] = At(block, lambda out: out[0])
    return found


def unet_modules(network: Any) -> Modules:
    found: Modules = {}
    for path, module in network.named_modules():
        where = re.fullmatch(r"(\w+?)_blocks?([.\d\w]*)\.transformer_blocks\.(\d+)", path)
        if where is not None:
            numbers = [int(n) for n in re.findall(r"\d+", path)]
            name = ".".join([where[1], *(f"{n:02d}" for n in numbers)])
            found[name, "attention", "image"] = At(module.attn1, lambda out: out)
            found[name, "attention", "text"] = At(module.attn2, lambda out: out)
            found[name, "residual", "image"] = At(module, lambda out: out)
    return found


def denoiser_modules(case: Case, denoiser: Any) -> Modules:
    if case.pipeline in MODULES:
        return MODULES[case.pipeline](denoiser)
    return flux_modules(denoiser, "text", TEXT_TOKENS) if case.is_flux else unet_modules(denoiser)


@contextmanager
def watching(modules: Modules) -> Iterator[dict[Any, list[torch.Tensor]]]:
    """Every output of every stream, in order of passes, in float64."""
    seen: dict[Any, list[torch.Tensor]] = {key: [] for key in modules}

    def keep(key: Any, at: At) -> Any:
        return lambda module, args, output: seen[key].append(
            at.part(args[0] if at.given else output).double()
        )

    handles = [at.module.register_forward_hook(keep(key, at)) for key, at in modules.items()]
    yield seen
    for handle in handles:
        handle.remove()


def by_branch(case: Case, passes: list[torch.Tensor]) -> torch.Tensor:
    """(sample, step, branch, token, channel): in passes of their own, or in parts of one."""
    if case.order == "turns":
        # texts of different lengths may be padded to their own
        longest = max(p.shape[1] for p in passes)
        passes = [F.pad(p, (0, 0, 0, longest - p.shape[1]), value=torch.nan) for p in passes]
        stacked = torch.stack(passes).unflatten(0, (-1, case.branches))
    else:
        by = -1 if case.order == "last" else 1
        stacked = torch.stack([torch.stack(p.chunk(case.branches)[::by]) for p in passes])
    return stacked.permute(2, 0, 1, 3, 4)


def root_mean_square(stream: torch.Tensor) -> np.ndarray:
    """Over tokens that are there, of the L2 norm over channels."""
    return stream.square().sum(-1).nanmean(-1).sqrt().numpy()


def text_lengths(case: Case) -> list[int]:
    """Tokens of the prompt of each branch that are no padding."""
    return [length(text) for text in (PROMPT, case.negative)[: case.branches]]


def by_stream(case: Case, seen: dict[Any, torch.Tensor]) -> dict[Any, np.ndarray]:
    """Root mean squares (sample, step, branch) of every stream: text is text and padding."""
    found = {}
    for (block, quantity, stream), tensor in seen.items():
        if stream != "text" or not pads(case):
            found[block, quantity, stream] = root_mean_square(tensor)
            continue
        pairs = [(tensor[:, :, b], n) for b, n in enumerate(text_lengths(case))]
        for name, parts in (
            ("text", [root_mean_square(of[..., :n, :]) for of, n in pairs]),
            ("padding", [root_mean_square(of[..., n:, :]) for of, n in pairs]),
        ):
            if np.isfinite(parts).any():  # Qwen-Image pads to the longest text alone
                found[block, quantity, name] = np.stack(parts, -1)
    return found


def record_watched(case: Case, path: Any, capture: Capture, modules: Modules, **call: Any):
    with record(case.pipe, path, capture), watching(modules) as seen:
        case(seeds=(0, 1), **call)
    return xr.open_zarr(path).load(), {key: by_branch(case, passes) for key, passes in seen.items()}


def test_norms_are_those_of_the_raw_tensors(case, tmp_path):
    modules = denoiser_modules(case, case.denoiser)
    run, seen = record_watched(case, tmp_path / "run.zarr", Capture(), modules)
    expected = by_stream(case, seen)
    for (block, quantity, stream), norms in expected.items():
        stored = run[f"{quantity}_norm"].sel(block=block, stream=stream)
        np.testing.assert_allclose(stored, norms, rtol=2e-6)
    # What the test's own hooks did not see is missing, and nothing else is.
    stored = {
        (str(block), quantity, str(stream))
        for quantity in ("attention", "residual")
        for block in run.block.values
        for stream in run.stream.values
        if np.isfinite(run[f"{quantity}_norm"].sel(block=block, stream=stream)).any()
    }
    assert stored == set(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["flux_cfg", "infusenet", "sd_cfg"])
def test_norms_of_half_precision_models_are_reduced_in_float32(name, dtype, tmp_path, monkeypatch):
    case = CASES[name]
    half = PIPELINES[case.pipeline]().to(dtype)
    monkeypatch.setattr(Case, "pipe", half)
    modules = denoiser_modules(case, case.denoiser)
    run, seen = record_watched(case, tmp_path / "run.zarr", Capture(), modules)
    expected = by_stream(case, seen)
    for (block, quantity, stream), norms in expected.items():
        stored = run[f"{quantity}_norm"].sel(block=block, stream=stream)
        np.testing.assert_allclose(stored, norms, rtol=2e-6)
    assert run.attrs["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    ("name", "context", "tokens"),
    [("flux_controlnet", "text", TEXT_TOKENS), ("infusenet_cfg", "identity", IDENTITY_TOKENS)],
)
def test_adapter_norms_are_split_at_its_own_context(name, context, tokens, tmp_path):
    case = CASES[name]
    modules = flux_modules(case.pipe.controlnet, context, tokens)
    modules = {key: found for key, found in modules.items() if key[1] == "attention"}
    with record(case.pipe, tmp_path / "run.zarr"), watching(modules) as seen:
        case(seeds=(0, 1))
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    assert run.adapter_block.values.tolist() == [b for b, _, stream in seen if stream == "image"]
    for (block, _, stream), passes in seen.items():  # once a step
        stored = run.adapter_attention_norm.sel(adapter_block=block, stream=stream)
        tokens = torch.stack(passes, 1)
        if stream == "text":
            tokens = tokens[:, :, : text_lengths(case)[0]]
        expected = root_mean_square(tokens)
        np.testing.assert_allclose(stored, expected, rtol=2e-6, err_msg=f"{block} {stream}")
    others = set(run.stream.values.tolist()) - {"image", context, "padding"}
    assert run.adapter_attention_norm.sel(stream=list(others)).isnull().all()


def test_unet_controlnet_norms_are_of_the_positive_branch(tmp_path):
    case = CASES["sd_controlnet_cfg"]
    modules = unet_modules(case.pipe.controlnet)
    with record(case.pipe, tmp_path / "run.zarr"), watching(modules) as seen:
        case(seeds=(0, 1))
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    for (block, quantity, stream), passes in seen.items():
        if quantity == "attention":
            expected = root_mean_square(by_branch(case, passes)[:, :, 0])
            stored = run.adapter_attention_norm.sel(adapter_block=block, stream=stream)
            np.testing.assert_allclose(stored, expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["flux_cfg", "sd_cfg", "sdxl_cfg"])
def test_token_maps_are_the_norms_of_each_token(name, tmp_path):
    """A coarser level of a U-Net is repeated onto the latents' grid."""
    case = CASES[name]
    modules = denoiser_modules(case, case.denoiser)
    run, seen = record_watched(case, tmp_path / "run.zarr", Capture("tokens"), modules)
    grid = (4, 6) if case.is_flux else (8, 12)
    assert (run.sizes["token_y"], run.sizes["token_x"]) == grid
    sides = set()
    for (block, quantity, stream), tensor in seen.items():
        if stream != "image":
            continue
        norms = tensor.square().sum(-1).sqrt()
        side = (grid[0] * grid[1] / norms.shape[-1]) ** 0.5
        sides.add(side)
        coarse = norms.unflatten(-1, (int(grid[0] / side), int(grid[1] / side))).numpy()
        fine = coarse.repeat(int(side), -1).repeat(int(side), -2)
        stored = run[f"{quantity}_token_norm"].sel(block=block)
        np.testing.assert_allclose(stored, fine, rtol=2e-6)
    assert sides == {"flux_cfg": {1}, "sd_cfg": {1, 2}, "sdxl_cfg": {2}}[name]


def test_token_maps_of_odd_sizes_are_repeated_to_the_nearest(tmp_path):
    """A level halves and rounds up: 9 x 13 latents are 5 x 7 on the coarser one."""
    case = CASES["sd"]
    modules = unet_modules(case.denoiser)
    latents = torch.randn(2, 4, 9, 13, generator=torch.Generator().manual_seed(0))
    call = {"height": 24, "width": 40, "latents": latents}
    run, seen = record_watched(case, tmp_path / "run.zarr", Capture("tokens"), modules, **call)
    norms = seen["mid.00.00", "residual", "image"].square().sum(-1).sqrt().unflatten(-1, (5, 7))
    rows, columns = np.arange(9) * 5 // 9, np.arange(13) * 7 // 13
    stored = run.residual_token_norm.sel(block="mid.00.00")
    np.testing.assert_allclose(stored, norms.numpy()[..., rows, :][..., columns], rtol=2e-6)


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("flux_cfg", ["double.*.attention.*", "single.04.residual.text", "single.01.attention.*"]),
        ("sd_cfg", ["mid.*", "*.attention.text"]),
    ],
)
def test_whole_tensors_are_those_that_the_modules_returned(name, patterns, tmp_path):
    case = CASES[name]
    modules = denoiser_modules(case, case.denoiser)
    capture = Capture("full", sites=tuple(patterns))
    run, seen = record_watched(case, tmp_path / "run.zarr", capture, modules)
    whole = [v for v in map(str, run.data_vars) if v.count(".") >= 3]
    named = {".".join(key): tensor for key, tensor in seen.items()}
    chosen = select(patterns, blocks_of(case.denoiser))
    assert sorted(whole) == sorted(chosen)
    for site in chosen:
        np.testing.assert_array_equal(run[site], named[site])
        assert run[site].dims[:3] == ("sample", "step", "branch")
