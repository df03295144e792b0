"""A model whose weights are moved or cast between its passes is recorded as the model that it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks import Capture, record
from tests.cases import PROMPT, wiring
from tests.models import PIPELINES
from tests.oracle_watch import Watch
from tests.small import opened

CALLS: dict[str, dict[str, Any]] = {
    "flux": {"height": 32, "width": 48, "max_sequence_length": 16},
    "sd": {"height": 16, "width": 24, "guidance_scale": 1.0},
}
CPU = torch.device("cpu")
NUMBERS = ["latents", "x0", "velocity", "attention_norm", "residual_norm", "massive_share", "image"]


def denoiser(pipe: Any) -> Any:
    return pipe.transformer if hasattr(pipe, "transformer") else pipe.unet


def call(pipe: Any, family: str) -> Any:
    generator = torch.Generator().manual_seed(0)
    return pipe(
        PROMPT, generator=generator, num_inference_steps=2, output_type="np", **CALLS[family]
    ).images


def recorded(pipe: Any, family: str, path: Path) -> xr.Dataset:
    """A run of one call."""
    with record(pipe, path, Capture(velocity=True)):
        call(pipe, family)
    return opened(path)


def in_groups(model: Any, folder: Path) -> None:
    """Blocks, of which each is moved on its own. From the CPU to the CPU nothing is copied."""
    model.enable_group_offload(CPU, CPU, offload_type="block_level", num_blocks_per_group=1)


def in_leaves(model: Any, folder: Path) -> None:
    model.enable_group_offload(CPU, CPU, offload_type="leaf_level")


def on_disk(model: Any, folder: Path) -> None:
    """Between passes the parameters are memory that nobody wrote."""
    path = str(folder / "weights")
    model.enable_group_offload(CPU, CPU, offload_type="leaf_level", offload_to_disk_path=path)


def on_meta(model: Any, folder: Path) -> None:
    """As a pipeline's enable_sequential_cpu_offload does it on a GPU."""
    accelerate.cpu_offload(model, CPU, offload_buffers=False)


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize("offload", [in_groups, in_leaves, on_disk, on_meta])
def test_a_model_that_is_offloaded_has_the_same_run(
    family: str, offload: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    pipe = PIPELINES[family]()
    plain = recorded(pipe, family, tmp_path / "plain.zarr")
    offload(denoiser(pipe), tmp_path)
    images = call(pipe, family)
    before = wiring(pipe)
    with record(pipe, tmp_path / "plain.zarr", Capture(velocity=True)):  # it is the same model
        np.testing.assert_array_equal(call(pipe, family), images)
    assert wiring(pipe) == before
    np.testing.assert_array_equal(call(pipe, family), images)
    run = xr.open_zarr(tmp_path / "plain.zarr").load()
    for name in NUMBERS:
        then, now = plain[name][0].values.astype(float), run[name][1].values.astype(float)
        # tensors of a file lie otherwise in memory, and the CPU's products round otherwise
        off = 1 if name == "image" else 1e-5 * np.nanmax(np.abs(then))
        np.testing.assert_allclose(now, then, rtol=0, atol=off * (offload is on_disk), err_msg=name)
    alone = recorded(pipe, family, tmp_path / "offloaded.zarr")
    for name in ("models", "device", "dtype"):
        assert alone.attrs[name] == plain.attrs[name]


def test_another_model_that_is_offloaded_to_disk_is_another_one(tmp_path: Path) -> None:
    found = []
    for number in (1.0, 2.0):
        pipe = PIPELINES["sd"]()
        with torch.no_grad():
            pipe.unet.conv_out.bias.fill_(number)
        (tmp_path / str(number)).mkdir()
        on_disk(pipe.unet, tmp_path / str(number))
        found.append(recorded(pipe, "sd", tmp_path / f"{number}.zarr").attrs["models"])
    assert found[0]["unet"] != found[1]["unet"]
    assert found[0]["vae"] == found[1]["vae"]


@pytest.mark.parametrize("family", CALLS)
@pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.bfloat16], ids=str)
def test_a_model_that_is_cast_at_each_layer_is_recorded_as_it_computes(
    family: str, storage: torch.dtype, tmp_path: Path
) -> None:
    pipe = PIPELINES[family]()
    plain = recorded(pipe, family, tmp_path / "plain.zarr")
    denoiser(pipe).enable_layerwise_casting(storage, torch.float32)
    images = call(pipe, family)
    before, watch = wiring(pipe), Watch(pipe)
    with watch.on():
        call(pipe, family)
    run = recorded(pipe, family, tmp_path / "cast.zarr")
    assert wiring(pipe) == before
    np.testing.assert_array_equal(call(pipe, family), images)
    blocks = set()
    for step, seen in enumerate(watch.steps):
        for (quantity, block), streams in seen.passes[0].outputs.items():
            norm = streams["image"].double().square().sum(-1).mean().sqrt().item()
            stored = run[f"{quantity}_norm"].sel(block=block, stream="image", branch="positive")
            assert stored[0, step].item() == pytest.approx(norm, rel=2e-6), (quantity, block)
            blocks.add(block)
    assert blocks == set(run.block.values.tolist())
    assert run.attrs["dtype"] == "float32"
    part = "transformer" if family == "flux" else "unet"
    assert run.attrs["models"][part] != plain.attrs["models"][part]
    assert not np.array_equal(run.latents, plain.latents)
