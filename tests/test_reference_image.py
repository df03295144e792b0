"""The reference image is what the adapter was given, else a photo; where there is neither, that is said."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from transformers import CLIPImageProcessorPil

from stepscope.analysis.__main__ import main
from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.metrics.reference_image import seen
from stepscope.analysis.runs import open_measured
from stepscope.hooks.errors import StepscopeError
from tests.fixtures import give_image_prompts
from tests.shell import run_command

PHOTOS = ("pocket/portraits/00_0.png", "pocket/portraits/01_0.png")
SIDE = 224


@pytest.fixture
def path(pocket_run: Path, tmp_path: Path) -> Path:
    """Two samples, of the faces 00_0 and 01_0, without image prompts."""
    return Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))


def by_transformers(photo: Path) -> np.ndarray:
    """As an IP-Adapter's encoder sees a picture, before its colours are scaled."""
    processor = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)
    (made,) = processor(Image.open(photo).convert("RGB"), return_tensors="np")["pixel_values"]
    return made.transpose(1, 2, 0)


@pytest.mark.parametrize("size", [(300, 300), (640, 260), (61, 97)])
def test_a_photo_is_seen_as_clips_processor_prepares_it(size, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    found = seen(str(tmp_path / "a.png"), (SIDE, SIDE))
    assert found.shape == (SIDE, SIDE, 3)
    assert np.abs(found.astype(int) - by_transformers(tmp_path / "a.png")).max() <= 1


def measured(path: Path, references: dict[str, str] | Sequence[str] = ()) -> np.ndarray:
    measure_all([path], ["reference_image"], Settings(references=references))
    found = open_measured(path)["reference_image"]
    assert found.dims == ("sample", "image_row", "image_column", "rgb")
    assert found["image_row"][:3].values.tolist() == [0, -1, -2]
    return found.values


def test_it_is_the_image_prompt_and_a_photo_only_where_there_is_none(path):
    prompts = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    prompts[1] = 0  # given as an embedding
    give_image_prompts(path, prompts)
    found = measured(path)
    np.testing.assert_array_equal(found, prompts)
    found = measured(path, dict(zip(("00_0", "01_0"), PHOTOS, strict=True)))
    np.testing.assert_array_equal(found[0], prompts[0])
    np.testing.assert_array_equal(found[1], seen(PHOTOS[1], (SIDE, SIDE)))


def test_a_changed_image_prompt_is_measured_again(path):
    prompts = np.full((2, SIDE, SIDE, 3), 9, np.uint8)
    give_image_prompts(path, prompts)
    measured(path)
    one = xr.Dataset(
        {"image_prompt": (("sample", "image_row", "image_column", "rgb"), prompts[:1] * 2)}
    )
    one.to_zarr(path, region={"sample": slice(0, 1)}, consolidated=False)
    assert measured(path)[:, 0, 0, 0].tolist() == [18, 9]


def test_without_image_prompts_it_is_the_photo_of_each_sample(path):
    found = measured(path, {"01_0": PHOTOS[1]})
    assert not found[0].any()
    np.testing.assert_array_equal(found[1], seen(PHOTOS[1], (SIDE, SIDE)))


@pytest.mark.parametrize("prompts", [None, np.zeros((2, SIDE, SIDE, 3), np.uint8)])
def test_with_neither_it_is_refused_in_one_line_before_anything_is_measured(path, prompts, capsys):
    if prompts is not None:
        give_image_prompts(path, prompts)
    for word in ("--dry", "dry=false"):
        assert run_command([str(path), "metrics=[reference_dinov2,latency]", word], main) == 2
        told = capsys.readouterr()
        (line,) = told.err.splitlines()
        assert line.startswith(f"{path}: no sample has a reference image: ")
        assert line.endswith("name one, --reference 00_0=PICTURE")
        assert not (path / "analysis").exists()


def test_a_photo_of_nobody_in_the_run_is_refused(path):
    with pytest.raises(StepscopeError, match="no sample has face='eve'"):
        measured(path, {"eve": PHOTOS[0]})
