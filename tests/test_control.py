"""The control image is InfiniteYou's, pixel for pixel: fitted, detected, drawn; or drawn already."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepscope.analysis.runs import open_recorded
from stepscope.probes.control import drawn, load_control, resized_and_padded
from stepscope.probes.faces import Finder
from tests.models import REFERENCE
from tests.shell import Words, infused, listed, study_of
from tests.test_faces import PACK, PORTRAITS

KNOWN = np.load(REFERENCE / "control" / "reference.npz")
"""The published functions' pixels: InstantID's drawings (0 to 2), InfiniteYou's, and its padding."""


def numbers(of: str) -> list[str]:
    return sorted({name.split("/")[1] for name in KNOWN if name.startswith(of)})


@pytest.mark.parametrize("number", numbers("drawing"))
def test_keypoints_are_drawn_as_published(number):
    expected = KNOWN[f"drawing/{number}/image"]
    found = drawn(KNOWN[f"drawing/{number}/keypoints"], expected.shape[1::-1])
    assert found.mode == "RGB"
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("number", numbers("padding"))
def test_a_photo_is_fitted_and_padded_as_published(number):
    expected = KNOWN[f"padding/{number}/image"]
    found = resized_and_padded(
        Image.fromarray(KNOWN[f"padding/{number}/picture"]), expected.shape[1::-1]
    )
    assert np.abs(np.asarray(found).astype(int) - expected).max() <= 1  # Pillow's resampling


def test_a_strip_is_fitted_where_the_published_code_has_no_pixel_left():
    assert resized_and_padded(Image.new("RGB", (900, 2)), (64, 64)).size == (64, 64)


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder(str(PACK), "", "cpu")


def control(finder: Finder, **changed: Any) -> Any:
    study = study_of(infused(faces="[a.npy]", **changed))
    size = study.width, study.height
    return load_control(study.control_image, study.control_image_kind, size, finder)


def test_a_photo_becomes_the_drawing_of_its_face_at_the_runs_size(finder):
    found = control(finder, control_image=PORTRAITS / "00_0.png", height=160, width=128)
    padded = Image.new("RGB", (128, 160), "white")
    padded.paste(Image.open(PORTRAITS / "00_0.png").convert("RGB"), (0, 16))
    keypoints, seen = finder.find(np.asarray(padded)[:, :, ::-1].copy(), "")
    np.testing.assert_array_equal(found.image, drawn(keypoints, (128, 160)))
    assert found.found == seen
    assert seen["picture"] == [128, 160]
    # the face of that person alone, found in the portrait itself
    alone, _ = finder.find(np.asarray(Image.open(PORTRAITS / "00_0.png"))[:, :, 2::-1].copy(), "")
    assert np.abs(keypoints - alone - [0, 16]).max() < 4


def test_a_drawing_stays_as_it_is_and_none_is_black(finder, tmp_path):
    drawing = Image.fromarray(KNOWN["drawing/0/image"])
    drawing.save(tmp_path / "drawn.png")
    given = control(
        finder, control_image=tmp_path / "drawn.png", control_image_kind="keypoints", width=128
    )
    np.testing.assert_array_equal(given.image, drawing)
    black = control(finder, height=96, width=128)
    assert (black.image.size, black.image.getextrema()) == ((128, 96), ((0, 0),) * 3)
    assert (given.found, black.found) == ({}, {})


def words(face: str, **changed: Any) -> Words:
    return infused(faces=listed(face), adapter__detector=PACK, **changed)


def test_a_photo_without_a_face_is_told_with_both_cures(typed, tmp_path, face):
    Image.fromarray(KNOWN["drawing/0/image"]).save(tmp_path / "drawn.png")
    answer = typed(words(face, control_image="drawn.png", out=tmp_path / "run.zarr"))
    assert answer.status == 2
    assert answer.line == (
        "no face found in control_image 'drawn.png' (detection sizes tried: 640, 320, 160): name a photo "
        "with a face, or control_image_kind=keypoints for a drawing of keypoints"
    )
    assert not (tmp_path / "run.zarr").exists()


def test_a_kind_that_is_none_is_answered_with_the_nearest(typed, face):
    answer = typed(words(face, control_image_kind="keypoint"))
    assert answer.status == 2
    assert answer.line.startswith("control_image_kind='keypoint'")
    assert "'keypoints'" in answer.line


def test_a_run_says_where_the_face_of_its_photo_was_found_and_by_what(typed, tmp_path, face):
    """Also where every face of the study is an embedding, for which nothing is detected."""
    (tmp_path / "pose.png").write_bytes((PORTRAITS / "01_0.png").read_bytes())
    out = tmp_path / "run.zarr"
    answer = typed(words(face, control_image=f"{tmp_path}/pose.png", out=out))
    assert answer.status == 0, answer.err
    attrs = open_recorded(out).attrs
    assert attrs["configuration"]["control_image_kind"] == "photo"
    assert np.array(attrs["control_image"]["keypoints"]).shape == (5, 2)
    assert attrs["control_image"]["detector"] == "det.onnx"
    assert "detector/det.onnx" in attrs["weights"]


def test_home_is_expanded(finder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pose.png").write_bytes((PORTRAITS / "01_0.png").read_bytes())
    assert control(finder, control_image="'~/pose.png'", width=128, height=128).found
