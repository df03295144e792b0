"""From image files to the face that conditions: the largest one, or one line that says why not."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepscope.analysis.runs import open_recorded
from stepscope.probes.faces import FaceError, FaceReader, Finder, face_files, read_embedding
from stepscope.probes.pictures import SUFFIXES
from tests.shell import infused, listed, run_command

ROOT = Path(__file__).parents[1]
PORTRAITS = ROOT / "pocket" / "portraits"
PACK = ROOT / "pocket" / "models" / "insightface" / "models" / "pocket"
ENCODER = ROOT / "pocket" / "models" / "infinite-you" / "identity.onnx"


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(Finder(str(PACK), "", "cpu"), str(ENCODER), "cpu")


def portrait(number: int) -> Image.Image:
    return Image.open(PORTRAITS / f"{number:02d}_0.png").convert("RGB")


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def test_face_is_a_unit_embedding_and_says_where_it_was_found(reader):
    face = reader.read("ann", PORTRAITS / "00_0.png")
    assert face.embedding.shape == (512,)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
    assert face.crop is not None
    assert face.crop.shape == (112, 112, 3)
    left, top, right, bottom = face.found["box"]
    assert 0 <= left < right <= 128
    assert 0 <= top < bottom <= 128
    assert face.found["detection_size"] == 640
    assert face.seconds > 0


def test_crop_is_rgb_as_the_image_is(reader):
    face = reader.read("ann", PORTRAITS / "00_0.png")
    left, top, right, bottom = (round(side) for side in face.found["box"])
    within = np.asarray(portrait(0))[top:bottom, left:right].mean((0, 1))
    assert face.crop is not None
    np.testing.assert_allclose(face.crop.mean((0, 1)), within, atol=20)
    assert within[0] - within[2] > 45  # skin is red


def test_largest_face_wins(reader, tmp_path):
    canvas = grey(384, 256)
    canvas.paste(portrait(1), (10, 60))
    canvas.paste(portrait(0).resize((224, 224)), (150, 16))
    canvas.save(tmp_path / "two.png")
    chosen = reader.read("two", tmp_path / "two.png")
    assert chosen.found["box"][0] > 150
    alone = [reader.read(str(n), PORTRAITS / f"{n:02d}_0.png").embedding for n in (0, 1)]
    assert chosen.embedding @ alone[0] > chosen.embedding @ alone[1] + 0.2


def test_embedding_file_is_normalised_and_a_normal_one_keeps_its_bits(tmp_path):
    rng = np.random.default_rng(0)
    unit = rng.normal(size=512)
    unit = (unit / np.linalg.norm(unit)).astype(np.float32)
    for factor in (1, 7):
        np.save(tmp_path / f"{factor}.npy", unit * np.float32(factor))
    same = read_embedding("ann", tmp_path / "1.npy")
    assert same.embedding.tobytes() == unit.tobytes()
    assert same.crop is None
    np.testing.assert_allclose(read_embedding("a", tmp_path / "7.npy").embedding, unit, atol=1e-7)


@pytest.mark.parametrize(
    "value",
    [np.zeros(512), np.full(512, np.nan), np.ones((1, 512)), np.ones(128), np.array(["a"] * 512)],
    ids=["zeros", "nan", "two axes", "short", "words"],
)
def test_embedding_of_another_form_is_refused(value, tmp_path):
    np.save(tmp_path / "odd.npy", value)
    with pytest.raises(FaceError, match=r"odd\.npy.*embedding"):
        read_embedding("odd", tmp_path / "odd.npy")


def test_names_in_a_run_are_stems_or_paths_where_stems_collide(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        portrait(0).save(tmp_path / folder / "ann.png")
    portrait(1).save(tmp_path / "b" / "bob.JPG", "JPEG")
    (tmp_path / "b" / "notes.txt").touch()
    a, b = (str(tmp_path / folder / "ann.png") for folder in "ab")
    assert list(face_files([str(tmp_path / "b")])) == ["ann", "bob"]
    assert list(face_files([a, str(tmp_path / "b")])) == [a, b, "bob"]
    with pytest.raises(FaceError, match="names one file twice"):
        face_files([a, str(tmp_path / "a")])


def test_of_a_mixed_folder_the_pictures_are_taken(tmp_path):
    for name in ("ann.png", "Zoë 肖像.tiff", "carl.GIF"):
        portrait(0).save(tmp_path / name)
    for name in ("._ann.png", ".hidden.jpg", "notes.txt", "Thumbs.db", "ann.png.json"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "more.png").mkdir()
    (tmp_path / "taken.heic").write_text("")  # left out, its face would be missing without a word
    assert list(face_files([str(tmp_path)])) == ["Zoë 肖像", "ann", "carl", "taken"]


def test_a_name_that_is_not_unicode_is_refused(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes Unicode alone")
    with pytest.raises(FaceError, match="is not UTF-8: rename it"):
        face_files([str(tmp_path)])


@pytest.mark.parametrize("kind", ["16-bit grey", "turned", "on glass"])
def test_a_face_is_found_whatever_its_file_is_like(kind, reader, tmp_path):
    plain = portrait(0) if kind == "turned" else portrait(0).convert("L").convert("RGB")
    plain.save(tmp_path / "plain.png")
    if kind == "16-bit grey":
        Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257).save(
            tmp_path / "odd.png"
        )
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 8
        plain.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "odd.png", exif=exif)
    else:
        plain.putalpha(255)
        plain.save(tmp_path / "odd.png")
    expected, found = (reader.read(name, tmp_path / f"{name}.png") for name in ("plain", "odd"))
    np.testing.assert_array_equal(found.crop, expected.crop)
    np.testing.assert_array_equal(found.embedding, expected.embedding)


def mistaken(name: str, folder: Path) -> Path:
    path = folder / name
    if name == "folder":
        path.mkdir()
    elif name == "nobody.png":
        grey(96, 64).save(path)
    elif name == "torn.png":
        path.write_bytes((PORTRAITS / "00_0.png").read_bytes()[:900])
    elif name != "missing.jpg":
        path.write_text("no image")
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody.png", "no face found in {path} (detection sizes tried: 640, 320, 160)"),
        ("missing.jpg", "faces: no file or folder '{path}'"),
        ("folder", "faces: folder '{path}' holds no image ({suffixes})"),
        ("letter.png", "face '{path}' is no picture that can be read here: save it as PNG or JPEG"),
        ("torn.png", "face '{path}' is cut short or damaged: copy or download it again"),
        ("letter.npy", "'{path}' cannot be read as an embedding of numbers"),
    ],
)
def test_face_that_is_not_to_be_had_is_answered_in_one_line(name, words, typed, tmp_path):
    path = mistaken(name, tmp_path)
    detector: dict[str, Any] = {"adapter__detector": PACK, "adapter__encoder": ENCODER}
    answer = typed(infused(faces=listed(path), out=tmp_path / "run.zarr", **detector))
    assert (answer.status, answer.line) == (
        2,
        words.format(path=path, suffixes=", ".join(SUFFIXES)),
    )
    assert not (tmp_path / "run.zarr").exists()


def test_run_from_an_image_holds_its_face(reader, tmp_path):
    image = PORTRAITS / "02_0.png"
    detector: dict[str, Any] = {"adapter__detector": PACK, "adapter__encoder": ENCODER}
    assert run_command(infused(faces=listed(image), out=tmp_path / "run.zarr", **detector)) == 0
    run, face = open_recorded(tmp_path / "run.zarr"), reader.read("02_0", image)
    assert run.face.values.tolist() == ["02_0"]
    np.testing.assert_array_equal(run.face_embedding[0], face.embedding)
    np.testing.assert_array_equal(run.face_crop[0], face.crop)
    assert run.attrs["faces"]["02_0"]["box"] == face.found["box"]
    assert float(run.stage_seconds.sel(stage="face")[0]) > 0
