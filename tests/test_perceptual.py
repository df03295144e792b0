"""DINOv2 of the named pairs, against a direct evaluation on random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from insightface.utils.face_align import norm_crop
from transformers import BitImageProcessorPil, Dinov2Model

from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics.dinov2 import Dinov2Likeness, embedded
from stepscope.analysis.runs import open_measured
from stepscope.hooks.errors import StepscopeError
from tests.fixtures import DINOV2_SIZE as SIZE


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)


@torch.no_grad()
def by_transformers(path: Path, images: np.ndarray) -> torch.Tensor:
    """Class tokens through transformers' own processor and model."""
    processor = BitImageProcessorPil(
        size={"height": SIZE, "width": SIZE},
        do_center_crop=False,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],  # preprocessor_config.json of facebook/dinov2-base
        image_std=[0.229, 0.224, 0.225],
    )
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    return Dinov2Model.from_pretrained(path).eval()(pixels).last_hidden_state[:, 0]


def cosine(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.cosine_similarity(a, b).numpy()


def test_dinov2_sees_what_transformers_prepares(dinov2: Path, images: np.ndarray) -> None:
    network = Dinov2Model.from_pretrained(dinov2).eval()
    expected = by_transformers(dinov2, images)
    # PIL rounds the resized image to whole levels.
    torch.testing.assert_close(embedded(network, images, SIZE), expected, atol=0.02, rtol=0)
    cut = images[:, :SIZE, :SIZE]
    torch.testing.assert_close(embedded(network, cut, SIZE), by_transformers(dinov2, cut))


def test_dinov2_compares_many_with_many_or_with_one(dinov2: Path, images: np.ndarray) -> None:
    likeness = Dinov2Likeness(str(dinov2), SIZE, "cpu")
    np.testing.assert_allclose(likeness.compare(images, images), 1, atol=1e-6)
    expected = [likeness.compare(images[i : i + 1], images[:1])[0] for i in range(3)]
    np.testing.assert_allclose(likeness.compare(images, images[:1]), expected, atol=1e-6)


def test_the_pairs_are_the_named_ones(measured_pocket: Path, dinov2: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(measured_pocket, tmp_path / "run.zarr"))
    longer = tmp_path / "longer.zarr"  # the second face alone, mirrored: another image of that cell
    other = xr.open_zarr(measured_pocket, chunks=None).isel(sample=[1]).load()
    for values in other.variables.values():
        values.encoding = {}
    other["image"] = other["image"][:, :, ::-1]
    other.to_zarr(longer, consolidated=True, write_empty_chunks=True)
    settings = Settings(dinov2=str(dinov2), dinov2_size=SIZE, many_step=str(longer))
    measure_all([path], ["dinov2", "dinov2_step"], settings)
    run = open_measured(path)
    assert run["pair"].values.tolist() == ["reference", "many_step"]
    image = run["image"].values
    points = run["final_keypoints"].sel(recogniser="pocket").values
    faces = np.stack([norm_crop(i, k) for i, k in zip(image, points, strict=True)])
    likeness = Dinov2Likeness(str(dinov2), SIZE, "cpu")
    np.testing.assert_allclose(
        run["dinov2"].sel(pair="reference"),
        likeness.compare(faces, run["face_crop"].values),
        atol=1e-6,
    )
    many = run["dinov2"].sel(pair="many_step").values
    assert np.isnan(many[0])  # the other run has no such cell
    np.testing.assert_allclose(
        many[1], likeness.compare(image[1:], image[1:, :, ::-1])[0], atol=1e-6
    )
    steps = run["dinov2_step"].values
    np.testing.assert_allclose(steps[:, -1], 1, atol=1e-6)
    np.testing.assert_allclose(
        steps[0], likeness.compare(run["decoded"][0].values, image[:1]), atol=1e-6
    )


def test_dinov2_that_is_not_there(pocket_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    with pytest.raises(StepscopeError, match=r"dinov2: no folder '\./nowhere'"):
        measure_all([path], ["dinov2"], Settings(dinov2="./nowhere"))
    assert not (path / "analysis").exists()


def test_weights_that_cannot_be_loaded_stop_it_before_anything_is_measured(
    pocket_run: Path, dinov2: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    broken = Path(shutil.copytree(dinov2, tmp_path / "dinov2"))
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StepscopeError, match="dinov2"):
        measure_all([path], ["arcface", "dinov2"], Settings(dinov2=str(broken)))
    assert not (path / "analysis").exists()
