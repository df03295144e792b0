"""A run is continued with the models that it was made with, wherever they lie, and with no others."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import xarray as xr
from PIL import Image

from stepscope.analysis.runs import open_recorded
from tests.models import INFINITE_YOU
from tests.shell import Words, infused, listed, tiny
from tests.test_faces import ENCODER, PACK, PORTRAITS


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def flip(file: Path) -> str:
    """Change a file's last bit; how a refusal tells of it."""
    old, data = sha(file), file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return f"{old} -> {sha(file)}"


def lose(path: Path) -> None:
    """The run's first sample is to be made again."""
    (lost,) = (f for f in (path / "x0" / "c" / "0").rglob("*") if f.is_file())
    lost.unlink()


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "run.zarr"


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with every model of a small run."""
    place = tmp_path / "here"
    shutil.copytree(INFINITE_YOU / "flux-dev", place / "flux")
    shutil.copytree(INFINITE_YOU / "infinite-you", place / "adapter")
    shutil.copy(ENCODER, place / "identity.onnx")
    shutil.copytree(PACK, place / "pack")
    return place


def words(place: Path, face: str | Path, out: Path) -> Words:
    return infused(
        backbone__path=place / "flux",
        adapter__path=place / "adapter",
        adapter__encoder=place / "identity.onnx",
        adapter__detector=place / "pack",
        faces=listed(face),
        out=out,
    )


@pytest.mark.parametrize(
    ("name", "finished"),
    [
        ("vae/diffusion_pytorch_model.safetensors", True),
        ("vae/diffusion_pytorch_model.safetensors", False),
        ("scheduler/scheduler_config.json", True),
    ],
)
def test_changed_file_is_refused_with_the_difference(name, finished, place, out, typed):
    """The configuration names a folder; what is in it may change under the same name."""
    model = place / "flux"
    words = tiny(backbone__path=model, out=out)
    assert typed(words).status == 0
    if not finished:
        lose(out)
    good = (model / name).read_bytes()
    difference = flip(model / name)
    answer = typed(words)
    assert answer.status == 2
    assert answer.line == (
        f"{out} was made with other models: backbone/{name}: {difference}. "
        "Choose another out=, or remove it"
    )
    (model / name).write_bytes(good)  # the same file, newer
    (model / "vae" / "other.safetensors").write_bytes(b"beside")  # nobody's
    assert typed(words).status == 0
    shutil.rmtree(model)  # a finished run needs no weights
    assert "nothing to do" in typed(words).out


@pytest.mark.parametrize("finished", [True, False])
def test_moved_models_are_the_same(finished, place, out, typed):
    face, there = PORTRAITS / "00_0.png", place.with_name("there")
    assert typed(words(place, face, out)).status == 0
    whole = xr.open_zarr(out).x0.load()
    if not finished:
        lose(out)
    place.rename(there)
    answer = typed(words(there, face, out))
    assert answer.status == 0, answer.err
    assert ("nothing to do" in answer.out) == finished
    xr.testing.assert_equal(xr.open_zarr(out).x0.load(), whole)


def test_models_that_are_other_elsewhere_are_another_configuration(place, out, typed):
    face, there = PORTRAITS / "00_0.png", place.with_name("there")
    assert typed(words(place, face, out)).status == 0
    shutil.copytree(place, there)
    difference = flip(there / "pack" / "det.onnx")

    def said() -> str:
        answer = typed(words(there, face, out))
        assert answer.status == 2
        return answer.line.partition(" was made with another configuration: ")[2]

    end = ". Choose another out=, or remove it"
    moved = {key: f'{key}: "{place}/{at}" -> "{there}/{at}"' for key, at in {
        "adapter.detector": "pack", "backbone.path": "flux"}.items()}  # fmt: skip
    assert said() == f"{moved['adapter.detector']}; detector/det.onnx: {difference}{end}"
    shutil.copy(place / "pack" / "det.onnx", there / "pack" / "det.onnx")
    shutil.rmtree(there / "flux")
    assert said() == f"{moved['backbone.path']}{end}"  # what is not there may be anything


def test_the_detector_is_one_of_the_models_where_it_found_a_face(place, out, typed, face):
    assert typed(words(place, PORTRAITS / "00_0.png", out)).status == 0
    assert sha(PACK / "det.onnx") == open_recorded(out).attrs["weights"]["detector/det.onnx"][:12]
    flip(place / "pack" / "recognition.onnx")  # finds no face
    assert "nothing to do" in typed(words(place, PORTRAITS / "00_0.png", out)).out
    given = out.with_name("given.zarr")
    assert typed(words(place, face, given)).status == 0
    difference = flip(place / "pack" / "det.onnx")
    assert (
        f"other models: detector/det.onnx: {difference}."
        in typed(words(place, PORTRAITS / "00_0.png", out)).line
    )
    assert "nothing to do" in typed(words(place, face, given)).out


@pytest.mark.parametrize("finished", [True, False])
def test_a_touched_file_is_read_once(finished, place, out, typed, monkeypatch):
    """Twenty gigabytes at every start would be minutes."""
    words = tiny(backbone__path=place / "flux", out=out)
    assert typed(words).status == 0
    if not finished:
        lose(out)
    file = place / "flux" / "vae" / "diffusion_pytorch_model.safetensors"
    os.utime(file, (1, 1))
    read: list[str] = []
    file_digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda f, kind: (read.append(f.name), file_digest(f, kind))[1]
    )
    assert typed(words).status == 0
    assert read == [str(file)]
    stamps = open_recorded(out).attrs["weight_stamps"]
    assert stamps["backbone/vae/" + file.name].endswith(" 1000000000 ns")  # so the next does not


def test_changed_control_image_is_refused(place, out, typed, face, tmp_path):
    control = tmp_path / "control.png"
    Image.new("RGB", (64, 64), "red").save(control)
    words_of = [*words(place, face, out), f"control_image={control}"]
    words_of.append("control_image_kind=keypoints")
    assert typed(words_of).status == 0
    assert "nothing to do" in typed(words_of).out
    Image.new("RGB", (64, 64), "blue").save(control)
    line = "another configuration: the file of control_image was changed"
    assert line in typed(words_of).line
