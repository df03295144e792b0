"""Likeness to the reference image, of the final image and of each step, against transformers' output."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from transformers import CLIPImageProcessorPil, CLIPModel

from stepscope.analysis.__main__ import main
from stepscope.analysis.interventions import join_base
from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics.decode import Decode
from stepscope.analysis.metrics.decode import pictures as made_by
from stepscope.analysis.metrics.dinov2 import Dinov2Likeness
from stepscope.analysis.metrics.reference_clip import ClipLikeness
from stepscope.analysis.metrics.reference_dinov2 import EditedReferenceDinov2
from stepscope.analysis.metrics.style_gram import GramDistance
from stepscope.analysis.runs import open_measured
from tests.fixtures import DINOV2_SIZE, give_image_prompts
from tests.shell import run_command

METRICS = ("reference_clip", "reference_dinov2", "style_gram")
EVERY = [*METRICS, *(f"{name}_step" for name in METRICS)]
SIZE = 32


@pytest.fixture(scope="module")
def settings(clip: Path, dinov2: Path, vgg: Path) -> Settings:
    return Settings(
        clip=str(clip), dinov2=str(dinov2), dinov2_size=DINOV2_SIZE, gram=str(vgg), gram_size=SIZE
    )


@pytest.fixture(scope="module")
def path(measured_pocket: Path, settings: Settings, tmp_path_factory) -> Path:
    """Two samples, measured; the first was given a picture, the second its embedding alone."""
    path = tmp_path_factory.mktemp("likeness") / "run.zarr"
    shutil.copytree(measured_pocket, path)
    prompts = np.zeros((2, 224, 224, 3), np.uint8)
    prompts[0] = np.random.default_rng(0).integers(0, 256, prompts[0].shape)
    give_image_prompts(path, prompts)
    measure_all([path], EVERY, settings)
    return path


def likeness(name: str, settings: Settings) -> ClipLikeness | Dinov2Likeness | GramDistance:
    return {
        "reference_clip": ClipLikeness(settings.clip, "cpu"),
        "reference_dinov2": Dinov2Likeness(settings.dinov2, DINOV2_SIZE, "cpu"),
        "style_gram": GramDistance(settings.gram, SIZE, "cpu"),
    }[name]


@pytest.mark.parametrize("name", METRICS)
def test_it_is_of_the_final_image_and_of_every_step_and_nan_without_a_reference(
    name, path, settings
):
    run, network = open_measured(path), likeness(name, settings)
    reference = run["image_prompt"].values[:1]
    assert run[name].dims == ("sample",)
    assert run[f"{name}_step"].dims == ("sample", "step")
    np.testing.assert_allclose(
        run[name][:1], network.compare(run["image"].values[:1], reference), rtol=1e-5
    )
    steps = network.compare(run["decoded"].values[0], reference)
    assert len(np.unique(steps)) == len(steps)
    np.testing.assert_allclose(run[f"{name}_step"][0], steps, rtol=1e-5)
    assert run[name][1].isnull()
    assert run[f"{name}_step"][1].isnull().all()
    better = {"style_gram": "lower is better"}.get(name, "higher is better")
    assert run[name].attrs["direction"] == better


@pytest.mark.parametrize("name", METRICS)
def test_an_image_is_most_like_itself_and_the_comparison_is_symmetric(name, settings):
    network = likeness(name, settings)
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 40, 3), dtype=np.uint8)
    itself, best = network.compare(images, images), 0 if name == "style_gram" else 1
    np.testing.assert_allclose(itself, best, atol=1e-6)
    others = [network.compare(*pair) for pair in ((images, images[::-1]), (images[::-1], images))]
    np.testing.assert_allclose(*others, rtol=1e-5, atol=1e-6)
    assert (np.abs(others[0][[0, 2]] - best) > 1e-6).all()


def test_edited_samples_are_compared_with_the_picture_of_their_run(settings):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(4, 16, 8, 8)).astype(np.float32)
    latents[2] = np.nan
    pictures = rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)[[0, 1, 0, 1]]
    pictures[3] = 0  # given as an embedding
    backbone = {"name": "pocket_dev", "path": "pocket/models/flux-dev", "dtype": "float32"}
    study = xr.Dataset(
        {
            "final_latents": (("sample", "channel", "y", "x"), latents),
            "reference_image": (("sample", "image_row", "image_column", "rgb"), pictures),
        },
        attrs={"configuration": {"backbone": backbone}},
    )
    metric = EditedReferenceDinov2(dinov2=settings.dinov2, dinov2_size=DINOV2_SIZE, device="cpu")
    images = made_by(Decode().autoencoder(study.attrs), latents[:2])
    wanted = likeness("reference_dinov2", settings).compare(images, pictures[:2])
    found = metric(study)["edited_reference_dinov2"]
    np.testing.assert_allclose(found[:2], wanted, atol=1e-3)  # a batch of another size rounds
    assert np.isnan(found[2:]).all()


def test_a_study_has_the_picture_of_the_sample_that_it_continues(path, tmp_path):
    base = Path(shutil.copytree(path, tmp_path / "run.zarr"))
    study = xr.Dataset(
        {"base": ("sample", [1, 0, 0]), "donor_face": ("sample", [""] * 3)},
        coords={"face": ("sample", ["01_0", "00_0", "00_0"])},
        attrs={"intervention": {"name": "a"}},
    )
    where = base / "interventions" / "a"
    found = join_base(where, study)["reference_image"].values
    held = open_measured(base)["image_prompt"].values
    np.testing.assert_array_equal(found, held[[1, 0, 0]])
    nothing = xr.Dataset(
        {"image_prompt": (("sample", "image_row", "image_column", "rgb"), held * 0)}
    )
    nothing.to_zarr(base, region={"sample": slice(0, 2)}, consolidated=False)
    assert "reference_image" not in join_base(where, study)  # it is a photo's then


@torch.no_grad()
def test_clip_sees_what_transformers_prepares(settings):
    images = np.random.default_rng(0).integers(0, 256, (3, 30, 30, 3), dtype=np.uint8)
    network = CLIPModel.from_pretrained(settings.clip).eval()
    shown = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)(
        list(images), return_tensors="pt"
    )
    out = network(input_ids=torch.tensor([[0, 2, 1]]), **shown)  # its embeddings are of unit norm
    wanted = out.image_embeds @ out.image_embeds[0]
    found = likeness("reference_clip", settings).compare(images, images[:1])
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_all_weights_that_are_missing_are_named_in_one_line_before_any_work(
    path, monkeypatch, tmp_path, capsys
):
    def unreached(*args: object, **words: object) -> None:
        raise OSError("no network")

    fresh = Path(shutil.copytree(path, tmp_path / "run.zarr"))
    shutil.rmtree(fresh / "analysis")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # an empty one
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreached)
    for word in ("--dry", "dry=false"):
        words = [str(fresh), f"metrics=[{','.join(METRICS)},latency]", "device=cpu", word]
        assert run_command(words, main) == 2
        (line,) = capsys.readouterr().err.splitlines()
        for cure in (
            "`hf download openai/clip-vit-large-patch14`",
            "`hf download facebook/dinov2-base`",
            "put https://download.pytorch.org/models/vgg19-dcbb9e9d.pth there",
        ):
            assert line.count(cure) == 1
        assert not (fresh / "analysis").exists()
