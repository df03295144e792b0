"""A picture is read as it looks, whatever its file is like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepscope.probes import pictures
from stepscope.probes.pictures import read_picture
from tests.drawn import COLOUR, COLUMNS, GREY, LEFT, Save, grey_rgb, picture, read


def big_endian(path: Path) -> None:
    image = Image.new("I;16B", (48, 32))
    image.frombytes((GREY.astype(np.uint16) * 257).astype(">u2").tobytes())
    image.save(path)


DEEP: dict[str, tuple[str, Save]] = {
    "I;16": ("a.png", lambda p: picture(GREY.astype(np.uint16) * 257).save(p)),
    "I;16 tiff": ("a.tif", lambda p: picture(GREY.astype(np.uint16) * 257).save(p)),
    "I;16B": ("a.tif", big_endian),
    "I of 8 bits": ("a.tif", lambda p: picture(GREY.astype(np.int32)).save(p)),
    "I of 16 bits": ("a.tif", lambda p: picture(GREY.astype(np.int32) * 257).save(p)),
    "I of 31 bits": ("a.tif", lambda p: picture(GREY.astype(np.int32) * 8421504).save(p)),
    "F to 1": ("a.tif", lambda p: picture(GREY.astype(np.float32) / 255).save(p)),
    "F to 1.02": ("a.tif", lambda p: picture(GREY.astype(np.float32) / 250).save(p)),
    "F to 255": ("a.tif", lambda p: picture(GREY.astype(np.float32)).save(p)),
    "F to 65535": ("a.tif", lambda p: picture(GREY.astype(np.float32) * 257).save(p)),
}


@pytest.mark.parametrize("name", DEEP)
def test_grey_of_more_bits_is_the_same_picture(name, tmp_path):
    file, save = DEEP[name]
    save(tmp_path / file)
    expected = np.clip(GREY / (250 / 255 if name == "F to 1.02" else 1), 0, 255)
    assert np.abs(read(tmp_path / file) - grey_rgb(expected)).max() <= 1


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    picture(GREY.astype(np.uint16)).save(tmp_path / "night.png")
    assert read(tmp_path / "night.png").max() <= 1


def transparent_palette(path: Path) -> None:
    """Index 0 is red and transparent, 1 is blue."""
    image = Image.fromarray((~LEFT).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(path, transparency=0)


def cut_out(mode: str) -> Save:
    def save(path: Path) -> None:
        alpha = np.where(LEFT, 0, 255).astype(np.uint8)
        layers = [alpha] if mode == "LA" else [alpha, alpha]
        blue = np.zeros_like(alpha)
        image = np.stack([blue, alpha] if mode == "LA" else [blue, blue, *layers], -1)
        Image.fromarray(image, mode).save(path)

    return save


ON_WHITE = grey_rgb(np.where(LEFT, 255, 0))
BLUE_ON_WHITE = np.where(LEFT[..., None], 255, [0, 0, 255])
CUT: dict[str, tuple[str, Save, np.ndarray]] = {
    "LA": ("a.png", cut_out("LA"), ON_WHITE),
    "RGBA": ("a.png", cut_out("RGBA"), BLUE_ON_WHITE),
    "RGBA tiff": ("a.tif", cut_out("RGBA"), BLUE_ON_WHITE),
    "RGBA webp": ("a.webp", lambda p: cut_out("RGBA")(p), BLUE_ON_WHITE),
    "palette": ("a.png", transparent_palette, BLUE_ON_WHITE),
    "palette gif": ("a.gif", transparent_palette, BLUE_ON_WHITE),
}


@pytest.mark.parametrize("name", CUT)
def test_what_is_transparent_is_white(name, tmp_path):
    file, save, expected = CUT[name]
    save(tmp_path / file)
    found = read(tmp_path / file)
    inside = np.abs(COLUMNS - 23.5) > 8  # WebP smears the edge
    assert np.abs(found - expected)[inside].max() <= 2


def half_transparent(path: Path) -> None:
    Image.fromarray(np.full((4, 4, 4), [255, 0, 0, 128], np.uint8), "RGBA").save(path)


def test_what_is_half_transparent_is_mixed_with_white(tmp_path):
    half_transparent(tmp_path / "half.png")
    assert np.abs(read(tmp_path / "half.png") - [255, 127, 127]).max() <= 1


PLAIN: dict[str, tuple[str, Save, np.ndarray, int]] = {
    "png": ("a.png", lambda p: picture(COLOUR).save(p), COLOUR, 0),
    "jpg": ("a.JPG", lambda p: picture(COLOUR).save(p, "JPEG", quality=98), COLOUR, 12),
    "grey jpg": ("a.jpg", lambda p: picture(GREY).save(p, quality=98), grey_rgb(), 4),
    "webp": ("a.webp", lambda p: picture(COLOUR).save(p, lossless=True), COLOUR, 0),
    "bmp": ("a.bmp", lambda p: picture(COLOUR).save(p), COLOUR, 0),
    "tiff lzw": ("a.tif", lambda p: picture(COLOUR).save(p, compression="tiff_lzw"), COLOUR, 0),
    "palette": ("a.png", lambda p: picture(GREY, "P").save(p), grey_rgb(), 0),
    "one bit": ("a.png", lambda p: picture(LEFT).save(p), grey_rgb(np.where(LEFT, 255, 0)), 0),
    "cmyk": ("a.tif", lambda p: picture(COLOUR, "CMYK").save(p), COLOUR, 1),
    "cmyk jpg": ("a.jpg", lambda p: picture(COLOUR, "CMYK").save(p, quality=98), COLOUR, 16),
    "ycbcr": ("a.tif", lambda p: picture(COLOUR, "YCbCr").save(p), COLOUR, 4),
    "wrong suffix": ("a.jpg", lambda p: picture(COLOUR).save(p, "PNG"), COLOUR, 0),
    "unicode": ("Zoë – 肖像.png", lambda p: picture(COLOUR).save(p), COLOUR, 0),
    "spaces and quotes": ("it's \"a\" face.png", lambda p: picture(COLOUR).save(p), COLOUR, 0),
    "progressive": ("a.jpg", lambda p: picture(GREY).save(p, quality=98, progressive=True),
                    grey_rgb(), 4),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_a_picture_is_read_as_it_looks(name, tmp_path):
    file, save, expected, tolerance = PLAIN[name]
    save(tmp_path / file)
    assert np.abs(read(tmp_path / file) - expected).max() <= tolerance


def test_a_file_that_may_only_be_read_is_read(tmp_path):
    picture(COLOUR).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0o444)
    tmp_path.chmod(0o555)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), COLOUR)
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_picture_is_read(kind, tmp_path):
    path = tmp_path / f"a.{kind.lower()}"
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "blue")]
    more: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], **more)
    assert np.abs(read(path) - [255, 0, 0]).max() <= 1


def scan(path: Path, side: int) -> None:
    """Dark to the left and light to the right, of more pixels than Pillow takes for honest."""
    image = Image.new("L", (side, side))
    image.paste(200, (side // 2, 0, side, side))
    image.save(path, compress_level=1)


@pytest.mark.parametrize("file", ["scan.png", "scan.jpg"])
def test_a_very_large_scan_is_read_smaller(file, tmp_path, recwarn):
    side = 13_400
    scan(tmp_path / file, side)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / file)
    found = read_picture(tmp_path / file, "face")
    assert found.size == (side // 2, side // 2)
    assert [found.getpixel((x, 100)) for x in (1000, 5000)] == [(0,) * 3, (200,) * 3]
    assert not recwarn.list


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F"])
def test_large_pictures_of_any_kind_are_read_smaller(mode, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MANY", 16 * 24)
    light = 255 if mode in ("1", "P") else 200
    values = np.where(LEFT, 0, light).astype(np.uint8)
    image = picture(values.astype(np.uint16) * 257) if mode == "I;16" else picture(values, mode)
    image.save(tmp_path / "a.tif")
    found = read(tmp_path / "a.tif")
    assert found.shape == (16, 24, 3)
    assert np.abs(found - grey_rgb(np.where(LEFT[::2, ::2], 0, light))).max() <= 1
