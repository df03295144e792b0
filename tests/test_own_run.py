"""A run of the user's own pipeline is measured: whom it should show is named afterwards."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxPipeline

from stepscope.analysis.__main__ import main, named_photos
from stepscope.analysis.measure import Settings, measure_all
from stepscope.analysis.no_face import no_face_lines
from stepscope.analysis.runs import open_measured
from stepscope.hooks.errors import StepscopeError, StepscopeWarning
from stepscope.hooks.recorder import record
from stepscope.probes.faces import FaceReader, Finder
from tests.shell import run_command

MODEL, PHOTOS = "pocket/models/flux-schnell", "pocket/portraits"
PACK = "pocket/models/insightface/models/pocket"


def pipeline() -> FluxPipeline:
    pipe = FluxPipeline.from_pretrained(MODEL)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: FluxPipeline, images: int = 1) -> None:
    prompts, noise = ["portrait photo of a person"] * images, torch.Generator().manual_seed(0)
    pipe(prompts, num_inference_steps=4, height=128, width=128, generator=noise)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Two calls of a pipeline without any adapter, the first of them labelled."""
    path = tmp_path_factory.mktemp("own") / "run.zarr"
    pipe = pipeline()
    with record(pipe, path) as recording:
        for face in ("00_0", ""):
            recording.label([{"face": face}])
            call(pipe)
    return path


@pytest.fixture
def path(recorded, tmp_path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run.zarr"))


def test_with_a_photo_and_a_pack_all_of_it_is_measured_from_the_command_line(path, capsys):
    words = [f"runs=[{path}]", f"references=[{PHOTOS}/00_0.png]", f"recognisers=[{PACK}]"]
    assert run_command(words, main) == 0
    assert "left out" not in capsys.readouterr().out
    found = open_measured(path)
    assert np.isfinite(found["final_similarity"].values[:, 0]).tolist() == [True, False]
    assert np.isfinite(found["similarity"].sel(alignment="fixed")[0]).all()
    assert found["decoded"].shape[1] == 4
    assert np.isfinite(found["sharpness"].sel(region="image")).all()
    np.testing.assert_array_equal(found["face_crop"][1], 0)
    np.testing.assert_array_equal(found["face_crop"][0], crop_of_a_probe(Path(PHOTOS, "00_0.png")))


def test_runs_and_people_are_named_without_keys_and_lost_faces_are_counted(path, capsys):
    words = [str(path), "--reference", f"00_0={PHOTOS}/00_0.png", f"recognisers=[{PACK}]"]
    words += ["metrics=[arcface_final]"]
    assert run_command([*words, "--dry"], main) == 0
    said = capsys.readouterr().out
    assert f"{path}: 2 samples, to measure: " in said
    assert not (path / "analysis").exists()
    assert run_command(words, main) == 0
    *_, measured, after = capsys.readouterr().out.splitlines()
    assert measured == "1 run is measured by arcface_final"
    assert after == f"next: stepscope explore {path}"
    with xr.open_dataset(path, engine="zarr", group="analysis", chunks=None) as group:
        flags = group["final_found"].load()
    flags[{"sample": 0}] = 2
    flags.drop_vars(flags.coords).to_dataset().to_zarr(
        path, group="analysis", region={"sample": slice(0, 2), "recogniser": slice(0, 1)}
    )
    assert no_face_lines([path], ["arcface_final"]) == [
        f"{path}: arcface_final: no face in 1 of 1 final images ({flags.recogniser.item()})"
    ]
    assert no_face_lines([path], ["decode"]) == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
        ("a.jpg", ["a.jpg"]),
        ({"ada": "a.jpg"}, {"ada": "a.jpg"}),
        ([{"ada": "a.jpg"}, "b.jpg"], {"ada": "a.jpg", "b": "b.jpg"}),
        (["ada b=a.jpg"], {"ada b": "a.jpg"}),
    ],
)
def test_people_are_named_by_themselves_or_by_their_photos(given, named):
    assert named_photos(given) == named


def crop_of_a_probe(photo: Path) -> np.ndarray:
    """The crop that `python -m probes` records of the photo."""
    encoder = "pocket/models/infinite-you/identity.onnx"
    crop = FaceReader(Finder(PACK, "~/.insightface", "cpu"), encoder, "cpu").read("ann", photo).crop
    assert crop is not None
    return crop


def test_without_either_what_cannot_be_measured_is_left_out_with_its_cure(path, capsys):
    assert run_command([f"runs=[{path}]"], main) == 0
    said = capsys.readouterr().out
    assert "left out: reference: " in said
    assert "left out with it: arcface_final, arcface, sharpness of the face\n" in said
    assert "recognisers=[PACK]" in said
    assert said.splitlines()[-2] == (
        "1 run is measured by decode, sharpness, latency; left out, with the reason above: arcface"
    )
    found = open_measured(path)
    assert {"decoded", "latency_seconds"} <= set(found)
    assert "similarity" not in found
    assert np.isfinite(found["sharpness"].sel(region="image")).all()
    assert found["sharpness"].sel(region="face").isnull().all()


def test_what_one_measurement_names_holds_for_the_next_until_another_is_named(path, capsys):
    named = ["--reference", f"00_0={PHOTOS}/00_0.png", f"recognisers=[{PACK}]"]
    assert run_command([str(path), *named], main) == 0
    first = open_measured(path).load()
    capsys.readouterr()
    assert run_command([str(path)], main) == 0
    again, *said = capsys.readouterr().out.splitlines()
    assert again.startswith(
        f"{path}: measured before with recognisers=[{Path(PACK).absolute()}] and "
    )
    assert again.endswith(f"{{00_0: {Path(PHOTOS, '00_0.png').absolute()}}}, which is used again")
    assert said[-2] == "1 run is measured by decode, arcface, sharpness, latency"
    assert not any("of 2 samples" in line for line in said)
    assert open_measured(path).load().identical(first)
    assert run_command([str(path), f"references=[{PHOTOS}/00_0.png]", "--dry"], main) == 0
    assert "references" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (f"00_0={PHOTOS}/00_1.pgn", "no file or folder '.*00_1.pgn'; did you mean '0._1.png'"),
        (f"eve={PHOTOS}/01_0.png", "no sample has face='eve'; known: 00_0; to say whose photo"),
    ],
)
def test_a_mistaken_photo_is_refused_before_anything_is_measured(photo, message, path, capsys):
    assert run_command([str(path), "--reference", photo, f"recognisers=[{PACK}]"], main) == 2
    answer = capsys.readouterr()
    assert not answer.out
    assert re.search(message, answer.err)
    assert not (path / "analysis").exists()


def test_a_photo_may_be_of_another_of_the_runs(path, tmp_path):
    other = Path(shutil.copytree(path, tmp_path / "other.zarr"))
    faces = np.array(["eve", ""], np.dtypes.StringDType())
    xr.Dataset({"face": ("sample", faces)}).to_zarr(
        other, region={"sample": slice(0, 2)}, consolidated=False
    )
    photos = {"00_0": f"{PHOTOS}/00_0.png", "eve": f"{PHOTOS}/01_0.png"}
    measure_all([path, other], ["reference"], Settings(recognisers=[PACK], references=photos))
    crops = [open_measured(one)["face_crop"].values[0] for one in (path, other)]
    np.testing.assert_array_equal(crops[0], crop_of_a_probe(Path(PHOTOS, "00_0.png")))
    np.testing.assert_array_equal(crops[1], crop_of_a_probe(Path(PHOTOS, "01_0.png")))


def test_a_named_metric_that_cannot_be_measured_is_an_error(path):
    with pytest.raises(StepscopeError, match=r"recognisers=\[PACK"):
        measure_all([path], ["arcface"])


def test_a_photo_of_nobody_in_the_run_is_an_error_and_one_photo_is_of_all_where_none_is_named(
    path, tmp_path
):
    settings = Settings(recognisers=[PACK], references={"eve": f"{PHOTOS}/01_0.png"})
    with pytest.raises(StepscopeError, match="no sample has face='eve'"):
        measure_all([path], ["arcface_final"], settings)
    pipe = pipeline()
    with record(pipe, tmp_path / "unnamed.zarr"):
        call(pipe, images=2)
    measure_all([tmp_path / "unnamed.zarr"], ["arcface_final"], settings)
    found = open_measured(tmp_path / "unnamed.zarr")
    assert np.isfinite(found["final_similarity"]).all()
    assert len(set(xr.open_zarr(tmp_path / "unnamed.zarr").face.values.tolist())) == 1


def test_whom_it_shows_is_named_when_it_is_recorded(tmp_path):
    path, pipe = tmp_path / "run.zarr", pipeline()
    with record(pipe, path, faces=[f"{PHOTOS}/00_0.png"]):
        call(pipe)
    with record(
        pipe, path, faces={"bob": f"{PHOTOS}/01_0.png", "eve": f"{PHOTOS}/02_0.png"}
    ) as more:
        more.label([{"face": "eve"}, {"face": "nobody"}])
        call(pipe, images=2)
    assert xr.open_zarr(path).face.values.tolist() == ["00_0", "eve", "nobody"]
    measure_all([path], ["arcface_final"], Settings(recognisers=[PACK]))
    crops = open_measured(path)["face_crop"].values
    np.testing.assert_array_equal(crops[0], crop_of_a_probe(Path(PHOTOS, "00_0.png")))
    np.testing.assert_array_equal(crops[1], crop_of_a_probe(Path(PHOTOS, "02_0.png")))
    assert not crops[2].any()


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        (["nobody.png"], "faces: no file 'nobody.png'"),
        ("ada.png", "name a list of photos"),
        (["README.md"], "faces: 'README.md' is no picture"),
        ([f"{PHOTOS}/00_0.png"] * 2, "two photos are named '00_0'"),
    ],
)
def test_photos_that_cannot_be_meant_are_refused_on_entry(faces, message, tmp_path):
    with (
        pytest.raises(StepscopeError, match=message),
        record(pipeline(), tmp_path / "r", faces=faces),
    ):
        pass


def test_two_people_and_a_call_that_says_of_neither_is_warned_of(tmp_path):
    path, faces = tmp_path / "run.zarr", [f"{PHOTOS}/00_0.png", f"{PHOTOS}/01_0.png"]
    with record(pipe := pipeline(), path, faces=faces):
        with pytest.warns(StepscopeWarning, match="faces names 2 people"):
            call(pipe)
    assert xr.open_zarr(path).face.values.tolist() == [""]
