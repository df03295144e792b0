"""LPIPS and DINOv2 of the named pairs, against a direct evaluation on random weights."""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from insightface.utils.face_align import norm_crop
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from analysis.measure import Settings, measure_all
from analysis.metrics import lpips
from analysis.metrics.dinov2 import Dinov2Likeness, embedded
from analysis.runs import open_measured, open_recorded
from hooks.errors import StepscopeError

SIZE = 28


def unavailable() -> str:
    """Why the `lpips` library cannot be used here, in a line; empty if it can."""
    for name in ("torchvision", "lpips"):
        try:
            import_module(name)
        except (ImportError, RuntimeError) as error:  # of another torch's build: RuntimeError
            return f"{name} does not import: {str(error).splitlines()[0]}"
    return ""


UNAVAILABLE = unavailable()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> Path:
    """A tiny DINOv2 with random weights, in the published layout."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE, patch_size=14
    )
    Dinov2Model(config).save_pretrained(path)
    return path


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


def test_lpips_that_is_not_installed_says_what_to_install(
    pocket_run: Path, tmp_path: Path, monkeypatch
) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    monkeypatch.setitem(sys.modules, "lpips", None)  # an import of it fails
    with pytest.raises(StepscopeError, match="pip install lpips torchvision") as caught:
        measure_all([path], ["lpips"])
    assert "\n" not in str(caught.value)
    assert not (path / "analysis").exists()  # nor were the faces measured that it stands on


def test_lpips_beside_a_torchvision_of_another_build_is_one_line_too(
    pocket_run: Path, tmp_path: Path, monkeypatch
) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand a trace")

    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    monkeypatch.setattr(lpips, "import_module", broken)
    with pytest.raises(StepscopeError) as caught:
        measure_all([path], ["lpips"])
    assert str(caught.value).endswith("(operator torchvision::nms does not exist)")
    assert not (path / "analysis").exists()


def test_lpips_knows_its_networks(pocket_run: Path) -> None:
    run = open_recorded(pocket_run)
    with pytest.raises(StepscopeError, match="lpips='alexnet'; known: alex, vgg, squeeze"):
        lpips.Lpips(lpips="alexnet").settings(run)


@torch.no_grad()
def by_its_definition(network: Any, first: np.ndarray, second: np.ndarray) -> float:
    """Zhang et al. 2018, equation 1, layer by layer, with the network's features and weights."""

    def features(image: np.ndarray) -> list[torch.Tensor]:
        pixels = torch.from_numpy(image / 127.5 - 1).float().permute(2, 0, 1)[None]
        mean = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]  # lpips.ScalingLayer
        deviation = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        return [f / f.norm(dim=1, keepdim=True) for f in network.net((pixels - mean) / deviation)]

    total = 0.0
    for k, (a, b) in enumerate(zip(features(first), features(second), strict=True)):
        weights = dict(network.named_parameters())[f"lin{k}.model.1.weight"]
        total += (weights * (a - b) ** 2).sum(1).mean().item()
    return total


@pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)
@pytest.mark.parametrize("name", lpips.NETWORKS)
def test_lpips_is_the_librarys_and_its_papers(name: str, images: np.ndarray) -> None:
    from lpips import LPIPS, im2tensor  # type: ignore[attr-defined]

    torch.manual_seed(0)
    big = images.repeat(2, 1).repeat(2, 2)
    network = LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False).eval()
    found = lpips.distances(network, big, big[:1])
    with torch.no_grad():
        expected = [network(im2tensor(image), im2tensor(big[0])).item() for image in big]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    known = [by_its_definition(network, image, big[0]) for image in big]
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-7)
    assert found[0] == 0
    assert (np.abs(found[1:]) > 0).all()


@pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)
def test_lpips_of_a_runs_pairs_and_steps(
    measured_pocket: Path, tmp_path: Path, monkeypatch
) -> None:
    from lpips import LPIPS  # type: ignore[attr-defined]

    path = Path(shutil.copytree(measured_pocket, tmp_path / "run.zarr"))
    torch.manual_seed(0)
    network = LPIPS(pretrained=False, pnet_rand=True, verbose=False).eval()
    monkeypatch.setattr(lpips, "load", lambda name, device: network)
    measure_all([path], ["lpips", "lpips_step"], Settings(many_step=str(measured_pocket)))
    run = open_measured(path)
    np.testing.assert_allclose(run["lpips"].sel(pair="many_step"), 0, atol=1e-7)  # its own images
    assert np.isfinite(run["lpips"].sel(pair="reference")).all()
    steps = run["lpips_step"].values
    np.testing.assert_allclose(steps[:, -1], 0, atol=1e-7)
    expected = lpips.distances(network, run["decoded"][1].values, run["image"][1:].values)
    np.testing.assert_allclose(steps[1], expected, atol=1e-6)
    assert run["lpips"].attrs["provenance"]["settings"]["model"]["network"] == "alex"
