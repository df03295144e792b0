"""Decoding is the pipeline's own last step, on every step's x0, with nothing but the VAE."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

from analysis.measure import Settings, measure_all
from analysis.metrics.decode import PIXELS, load_vae, pictures
from analysis.runs import open_measured, open_recorded
from hooks.errors import StepscopeError
from tests.bench import decoding

VAE = "pocket/models/flux-dev/vae"


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


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is Linux's")
def test_memory_does_not_grow_with_samples() -> None:
    few, many = 4, 16  # two blocks of images, and eight
    first, second = decoding.in_child([few, many])
    assert second - first < (many - few) * decoding.MB_A_SAMPLE / 2
