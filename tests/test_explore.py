"""The explorer shows what a run holds: values and the Python for them, pictures, and what is missing."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from stepscope.analysis.cells import cell_keys
from stepscope.analysis.explore.answers import answer
from stepscope.analysis.explore.pictures import fitted, frames
from stepscope.analysis.explore.save import save
from stepscope.analysis.explore.source import ExploreError, Source
from stepscope.analysis.explore.variables import about, selection
from stepscope.analysis.explore.view import samples, view
from stepscope.hooks import record
from stepscope.hooks.capture import Capture
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.layout import layout
from stepscope.hooks.store import Run
from tests.exploring import many
from tests.small import SMALL

NORMS = {"attention_norm", "residual_norm", "residual_norm_without_massive", "massive_share"}


def test_every_map_of_blocks_and_steps_is_shown(pocket_run: Path) -> None:
    shown = about(Source(str(pocket_run)))["variables"]
    maps = {name for name, one in shown.items() if one["kind"] == "map"}
    assert maps == NORMS | {"contribution", "adapter_attention_norm"}


def test_identity_and_sharpness_are_curves(measured_pocket: Path) -> None:
    shown = about(Source(str(measured_pocket)))["variables"]
    curves = {name for name, one in shown.items() if one["kind"] == "curve"}
    assert curves == {"similarity", "sharpness", "step_seconds"}


@pytest.mark.parametrize("place", [0, -1])
def test_the_python_for_a_value_gives_that_value(measured_pocket: Path, place: int) -> None:
    """Of every variable, at its first and its last place."""
    source = Source(str(measured_pocket))
    shown = about(source)
    seen = view(source, 1)["values"]
    assert seen.keys() >= NORMS | {"similarity"}
    for name, values in seen.items():
        one = shown["variables"][name]
        words = {axis: shown["coordinates"][axis][place] for axis in one["dims"]} | {"sample": 1}
        names: dict[str, Any] = {"xr": xr}
        exec(shown["opening"][one["group"]], names)
        selected = eval(selection(one["line"], words), names).item()
        np.testing.assert_equal(selected, values[(place,) * values.ndim].item(), name)


def test_a_site_is_named_as_it_is_recorded(pocket_run: Path) -> None:
    site = about(Source(str(pocket_run)))["variables"]["attention_norm"]["site"]
    assert site.format(block="double.01", stream="image") == "double.01.attention.image"


def test_a_picture_is_the_decoded_x0(measured_pocket: Path) -> None:
    pictures = frames(Source(str(measured_pocket)), 1)
    decoded = xr.open_zarr(measured_pocket, group="analysis").decoded[1].values
    for picture, pixels in zip(pictures, decoded, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(picture)), float)
        assert np.abs(shown - pixels).mean() < 4  # of 255; what is lost by the encoding


def test_what_was_not_decoded_has_approximate_colours_and_the_cure(pocket_run: Path) -> None:
    source = Source(str(pocket_run))
    seen = view(source, 0)
    assert seen["pictures"] == "approximate"
    assert f"stepscope measure {pocket_run}" in seen["note"]
    last = np.asarray(Image.open(io.BytesIO(frames(source, 0)[-1])), float)
    image = xr.open_zarr(pocket_run).image[0].values.astype(float)
    scale = image.shape[0] // last.shape[0]
    small = image.reshape(last.shape[0], scale, last.shape[1], scale, 3).mean((1, 3))
    assert np.corrcoef(last.ravel(), small.ravel())[0, 1] > 0.9


def test_colours_that_are_linear_in_the_latents_are_found() -> None:
    generator = np.random.default_rng(0)
    latents, weights = generator.normal(size=(4, 6, 8)), generator.normal(size=(5, 3))
    rows = np.concatenate([latents.reshape(4, -1).T, np.ones((48, 1))], 1)
    image = (rows @ weights).reshape(6, 8, 3).repeat(4, 0).repeat(4, 1)
    found = fitted(latents, image)
    assert found is not None
    np.testing.assert_allclose(found, weights, atol=1e-10)


def test_samples_are_named_by_words_and_places(pocket_run: Path) -> None:
    found = samples(Source(str(pocket_run)))
    run = xr.open_zarr(pocket_run)
    face = found["columns"]["face"]
    assert [face["words"][code] for code in face["codes"]] == run.face.values.tolist()
    assert found["done"] == [1, 1]


def test_a_seed_that_is_not_known_is_not_shown_as_a_number(
    pocket_run: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(pocket_run, tmp_path / "run.zarr"))
    words = np.array(["seed 18446744073709551615", "abc"], np.dtypes.StringDType())
    changed = {"seed": ("sample", np.array([-1, -1])), "generator": ("sample", words)}
    xr.Dataset(changed).to_zarr(path, region={"sample": slice(0, 2)}, consolidated=False)
    column = samples(Source(str(path)))["columns"]["seed"]
    assert [column["words"][code] for code in column["codes"]] == ["-1", ""]
    with pytest.raises(StepscopeError, match="face '', prompt 'a', seed unknown twice"):
        cell_keys(
            xr.DataArray([1.0, 2.0], {n: ("sample", [v] * 2) for n, v in CELL.items()}, ["sample"])
        )


CELL = {"face": "", "prompt": "a", "seed": -1}


def test_the_reference_face_is_shown_as_it_was_recorded(pocket_run: Path) -> None:
    source = Source(str(pocket_run))
    assert view(source, 1)["reference"]
    picture = answer([source], "face", {"run": "0", "sample": "1"})
    assert isinstance(picture, bytes)
    shown = np.asarray(Image.open(io.BytesIO(picture)), float)
    assert np.abs(shown - xr.open_zarr(pocket_run).face_crop[1].values).mean() < 4  # of 255


def test_ten_thousand_samples_open_by_their_coordinates_alone(tmp_path: Path) -> None:
    """Everything else of the run is damaged, so that reading any of it is an error."""
    source = Source(str(many(tmp_path / "run.zarr", 10_000, damaged=True)))
    shown, found = about(source), samples(source)
    assert shown["samples"] == found["count"] == 10_000
    assert sum(found["done"]) == 10_000 - 1
    assert found["done"][-1] == 0
    assert found["columns"]["seed"]["words"][4321] == "4321"
    with pytest.raises(ValueError, match="checksum"):
        view(source, 0)


def test_what_is_not_done_is_not_shown(tmp_path: Path) -> None:
    source = Source(str(many(tmp_path / "run.zarr", 3)))
    seen = view(source, 2)
    assert (seen["done"], seen["values"], seen["pictures"]) == (False, {}, "none")


def test_a_run_that_grows_is_seen_to_grow(tmp_path: Path) -> None:
    plan = layout(
        [], [], Capture(), streams=("image",), steps=2, branches=("positive",), latent=(4, 2, 2),
        image=None, grid=(1, 1), full={},
    )  # fmt: skip
    run = Run.create(tmp_path / "run.zarr", plan, [], {})
    source = Source(str(tmp_path / "run.zarr"))
    assert samples(source)["count"] == about(source)["samples"] == 0
    one = {
        name: np.zeros(shape, declared.dtype)
        for name, (declared, shape) in plan.variables.items()
        if declared.dims[0] == "sample" and name != "done"
    }
    run.append([{"prompt": "a <b> & c"}], [one])
    assert samples(source)["columns"]["prompt"]["words"] == ["a <b> & c"]
    assert view(source, 0)["done"]


def test_a_step_that_did_not_run_has_no_picture(pocket_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    shutil.copytree(pocket_run, path)
    run = xr.open_zarr(path, chunks=None)
    x0 = run["x0"][1:2].variable.load()
    x0[:, 2:] = np.nan
    xr.Dataset({"x0": x0}).to_zarr(path, region={"sample": slice(1, 2)}, consolidated=False)
    assert [bool(picture) for picture in frames(Source(str(path)), 1)] == [True, True, False, False]


def test_a_recorded_pipeline_of_another_family_is_shown(sd: Any, tmp_path: Path) -> None:
    """A U-Net without faces, with guidance in one batch: other blocks, two branches, text for labels."""
    with record(sd, tmp_path / "run.zarr"):
        sd("a </script> & <b>", negative_prompt="ugly", guidance_scale=5.0, **SMALL)
    source = Source(str(tmp_path / "run.zarr"))
    shown = about(source)
    assert shown["coordinates"]["branch"] == ["positive", "negative"]
    assert shown["coordinates"]["block"][0] == "down.00.00.00"
    assert np.isfinite(view(source, 0)["values"]["residual_norm"][..., 0]).all()
    page = save([source], tmp_path / "page.html").path.read_text()
    held = json.loads(page.split('id="given">')[1].split("</script>")[0])
    prompt = held["saved"]["samples?run=0"]["columns"]["prompt"]
    assert prompt["words"] == ["a </script> & <b>"]


def test_a_sample_that_is_not_measured_has_no_measured_values(
    measured_pocket: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.zarr"
    shutil.copytree(measured_pocket, path)
    mark = xr.DataArray([0], dims="sample", name="measured_arcface")
    region = {"sample": slice(1, 2)}
    mark.to_dataset().to_zarr(path, group="analysis", region=region, consolidated=False)
    source = Source(str(path))
    assert "similarity" in view(source, 0)["values"]
    assert "similarity" not in view(source, 1)["values"]


@pytest.mark.parametrize(
    ("name", "question", "error"),
    [
        ("view", {"run": "0", "sample": "9"}, "has 2 samples, from 0: no sample 9"),
        ("view", {"run": "2", "sample": "0"}, "no run 2: there are 1, from 0"),
        ("view", {"run": "0", "sample": "../x"}, "sample='../x' is no whole number"),
        ("frame", {"run": "0", "sample": "0", "step": "4"}, "has 4 steps, from 0: no step 4"),
        ("tokens", {"run": "0", "sample": "0", "step": "0", "variable": "x"}, "no variable 'x'"),
        ("weights", {"run": "0"}, "no answer to 'weights'"),
    ],
)
def test_what_is_not_there_is_answered_in_one_line(
    pocket_run: Path, name: str, question: dict[str, str], error: str
) -> None:
    with pytest.raises(ExploreError) as told:
        answer([Source(str(pocket_run))], name, question)
    assert error in str(told.value)
