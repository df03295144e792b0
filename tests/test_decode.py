"""Decoding is the pipeline's own last step, on every step's x0, with nothing but the VAE."""

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import AutoencoderKL, FluxPipeline
from diffusers.image_processor import VaeImageProcessor

from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics.decode import (
    PIXELS,
    load_vae,
    pictures,
    upcasts,
    vae_dtype,
)
from stepscope.analysis.metrics.vaes import unscaled
from stepscope.analysis.runs import open_measured, open_recorded
from stepscope.hooks import record
from stepscope.hooks.errors import StepscopeError
from tests.bench import decoding

VAE = "pocket/models/flux-dev/vae"
FAMILIES = ("Flux", "StableDiffusion")


def by_diffusers(latents: np.ndarray) -> np.ndarray:
    """As FluxPipeline.__call__ ends, one image at a time."""
    vae: Any = AutoencoderKL.from_pretrained(VAE)
    processor: Any = VaeImageProcessor()
    made = []
    for z in torch.from_numpy(latents)[:, None]:
        z = z / vae.config.scaling_factor + vae.config.shift_factor
        with torch.no_grad():
            made.append(processor.postprocess(vae.decode(z).sample, output_type="np")[0])
    return (np.stack(made) * 255).round().astype(np.uint8)


def test_steps_are_decoded_as_diffusers_does(measured_pocket: Path) -> None:
    run = open_measured(measured_pocket)
    expected = by_diffusers(run["x0"][0].values)
    found = run["decoded"][0].values
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1  # rounding, in batches of another size
    assert (found != expected).mean() < 1e-3


def test_the_last_step_of_a_flow_is_the_image(measured_pocket: Path) -> None:
    run = open_measured(measured_pocket)
    np.testing.assert_array_equal(run["decoded"][:, -1], run["image"])
    assert (run["decoded"][:, 0] != run["image"]).mean() > 0.5


def test_batches_do_not_change_images(pocket_run: Path, monkeypatch) -> None:
    latents = open_recorded(pocket_run)["x0"][0].values
    vae = load_vae(VAE, "float32", "cpu")
    together = pictures(vae, latents)
    monkeypatch.setitem(PIXELS, "cpu", 1)
    assert np.abs(pictures(vae, latents).astype(int) - together).max() <= 1


def test_a_run_without_images_gets_them(pocket_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "latents.zarr"
    whole = xr.open_zarr(pocket_run, chunks=None)
    whole.drop_vars("image").to_zarr(path, consolidated=True, write_empty_chunks=True)
    measure_all([path], ["arcface_final"])
    found = open_measured(path)
    assert np.abs(found["image"].values.astype(int) - whole["image"].values).max() <= 1
    assert np.isfinite(found["final_similarity"]).all()


def test_a_vae_alone_is_enough(pocket_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    shutil.copytree(VAE, tmp_path / "vae")
    measure_all([path], ["decode"], Settings(vae=str(tmp_path / "vae")))
    np.testing.assert_array_equal(
        open_measured(path)["decoded"][:, -1], open_recorded(path)["image"]
    )


def test_a_vae_that_is_not_there(pocket_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    with pytest.raises(StepscopeError, match=r"vae: no folder .* at 'nowhere'"):
        measure_all([path], ["decode"], Settings(vae="nowhere"))


STORED = {
    "float8 denoiser, VAE as it says": {"vae_dtype": "float32", "dtype": "float8_e4m3fn"},
    "float8 denoiser": {"dtype": "float8_e4m3fn"},
    "packed denoiser": {"dtype": "uint8"},
    "VAE of its own": {"vae_dtype": "float32", "dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", STORED)
def test_weights_that_are_stored_small_are_decoded_by_a_vae_that_is_not(
    name, pocket_run: Path, tmp_path: Path
) -> None:
    """As a run of a pipeline of the user's own says it, which has no configuration."""
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"] = without(told["attributes"], "configuration") | STORED[name]
    (path / "zarr.json").write_text(json.dumps(told))
    measure_all([path], ["decode"], Settings(vae=VAE))
    x0, found = open_recorded(path)["x0"].values, open_measured(path)["decoded"].values
    for sample in range(len(x0)):
        expected = by_diffusers(x0[sample])
        assert np.abs(found[sample].astype(int) - expected).max() <= 1


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_a_run_of_layerwise_cast_weights_is_decoded_as_its_pipeline_did(tmp_path: Path) -> None:
    """Recorded for real; AutoencoderKL asks for float32 unless its configuration says otherwise."""
    pipe = FluxPipeline.from_pretrained(Path(VAE).parent, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )
    pipe.vae.register_to_config(force_upcast=True)
    pipe.vae.save_pretrained(tmp_path / "vae")
    path = tmp_path / "run.zarr"
    with record(pipe, path):
        pipe("a person", height=64, width=64, num_inference_steps=2, max_sequence_length=16)
    measure_all([path], ["decode"], Settings(vae=str(tmp_path / "vae")))
    run = open_measured(path)
    found = run["decoded"][0].values.astype(int)
    assert np.abs(found - by_diffusers(run["x0"][0].values)).max() <= 1
    assert np.abs(found[-1] - run["image"][0].values).max() <= 1


UPCAST = [
    ("FluxPipeline", "float16", True, "float16"),
    ("StableDiffusionPipeline", "float16", True, "float16"),
    ("StableDiffusionXLPipeline", "float16", True, "float32"),
    ("StableDiffusionXLPipeline", "float16", None, "float32"),
    ("StableDiffusionXLPipeline", "float16", False, "float16"),
    ("StableDiffusionXLPipeline", "bfloat16", True, "bfloat16"),
    ("SomebodysOwnPipeline", "float16", True, "float32"),
    ("FluxPipeline", "bfloat16", True, "bfloat16"),
]


@pytest.mark.parametrize(("pipeline", "dtype", "asks", "expected"), UPCAST)
def test_float32_is_asked_for_as_diffusers_pipelines_do(pipeline, dtype, asks, expected) -> None:
    vae = {} if asks is None else {"force_upcast": asks}
    assert vae_dtype({"pipeline": pipeline, "vae_dtype": dtype, "vae": vae}) == expected


def test_pipelines_that_look_at_force_upcast_are_those_whose_code_names_it() -> None:
    """diffusers' own `needs_upcasting`, in the call or in a method of the same file."""
    kinds = [getattr(diffusers, name) for name in dir(diffusers) if name.startswith(FAMILIES)]
    looks = {
        kind.__name__: "config.force_upcast" in Path(inspect.getfile(kind)).read_text()
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline)
    }
    assert len(looks) > 60
    assert {name: upcasts(name) for name in looks} == looks


def test_a_pipeline_s_image_in_half_precision_is_made_again(tmp_path: Path) -> None:
    pipe = FluxPipeline.from_pretrained(Path(VAE).parent, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.register_to_config(force_upcast=True)
    latents = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        decoded = pipe.vae.decode(unscaled(pipe.vae.config, latents), return_dict=False)[0]
    expected: Any = pipe.image_processor.postprocess(decoded, output_type="np")
    found = pictures(pipe.vae, latents.float().numpy())
    assert np.abs(found - (expected * 255).round()).max() <= 1


def test_latents_are_put_into_the_vae_as_sdxl_does() -> None:
    """A VAE with a mean and a standard deviation of its latents (Playground v2.5)."""
    config = {"scaling_factor": 0.5, "latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0]}
    found = unscaled(config, torch.ones(1, 2, 1, 1))
    assert found.flatten().tolist() == [1 * 3 / 0.5 + 1, 1 * 4 / 0.5 + 2]
    assert unscaled({"scaling_factor": 0.5, "shift_factor": 0.25}, torch.ones(1)).item() == 2.25
    assert unscaled({"scaling_factor": 0.5}, torch.ones(1)).item() == 2


def test_what_was_not_computed_is_black_and_what_overflows_is_refused() -> None:
    vae = load_vae(VAE, "float32", "cpu")
    latents = np.zeros((3, 16, 4, 4), np.float32)
    latents[1] = np.nan
    found = pictures(vae, latents)
    assert found[1].max() == 0
    np.testing.assert_array_equal(found[[0, 2]], pictures(vae, latents[[0, 2]]))
    assert pictures(vae, latents[[1]]).max() == 0
    with pytest.raises(StepscopeError, match=r"overflows in the float32 .*vae=FOLDER"):
        pictures(vae, np.full((1, 16, 4, 4), 3e38, np.float32))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's")
def test_memory_does_not_grow_with_samples() -> None:
    few, many = 4, 8  # two blocks of images, and four
    first, second = decoding.in_child([few, many])
    assert second - first < (many - few) * decoding.MB_A_SAMPLE / 2
