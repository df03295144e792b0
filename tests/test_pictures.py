"""A picture is read as it looks, whatever its file is like, or one line says what is wrong with it."""

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from probes import pictures
from probes.pictures import PictureError, read_picture

ROWS, COLUMNS = np.mgrid[0:32, 0:48]
RED = COLUMNS * 5
COLOUR = np.stack([RED, ROWS * 8, 255 - RED], -1).astype(np.uint8)
"""No two turns or mirrorings of it are alike."""
GREY = (COLUMNS * 3 + ROWS * 3).astype(np.uint8)
LEFT = COLUMNS < 24

Save = Callable[[Path], object]


def read(path: Path) -> np.ndarray:
    """Rows of RGB, as numbers that can be subtracted."""
    picture = read_picture(path, "face")
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def grey_rgb(values: np.ndarray = GREY) -> np.ndarray:
    return np.repeat(values[..., None], 3, -1).astype(int)


def picture(values: np.ndarray, mode: str | None = None) -> Image.Image:
    found = Image.fromarray(values)
    return found if mode is None else found.convert(mode)


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


TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p, -1),
}
"""An upright picture as a camera with that EXIF orientation stores it."""


def exif(orientation: Any) -> Image.Exif:
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = orientation
    return found


@pytest.mark.parametrize("file", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_turned_picture_is_upright(orientation, file, tmp_path):
    stored = np.ascontiguousarray(TURNED[orientation](COLOUR))
    more: dict[str, Any] = {"lossless": True} if file == "a.webp" else {"quality": 98}
    picture(stored).save(tmp_path / file, exif=exif(orientation), **more)
    found = read(tmp_path / file)
    assert found.shape == COLOUR.shape
    assert np.abs(found - COLOUR).max() <= 16


def entry(kind: int, count: int, value: bytes) -> bytes:
    """EXIF of one directory with one entry, an orientation of that TIFF type."""
    head = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1)
    return head + struct.pack(">HHI4s", 0x0112, kind, count, value) + bytes(4)


ODD_EXIF = {
    "no orientation of EXIF's": exif(9).tobytes(),
    "a word for an orientation": entry(2, 3, b"up\0\0"),
    "half an orientation": entry(5, 1, struct.pack(">I", 4000)),
    "an unknown type": entry(99, 1, b"\0\6\0\0"),
    "noise": b"Exif\0\0" + bytes(range(200)),
    "only its name": b"Exif\0\0",
    "torn": exif(6).tobytes()[:-7],
    "far offset": b"Exif\0\0II*\0\xff\xff\xff\x7f",
    "a directory of 65535 entries": b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 8,
}


@pytest.mark.parametrize("file", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("name", ODD_EXIF)
def test_broken_exif_is_ignored(name, file, tmp_path, recwarn):
    more: dict[str, Any] = {"lossless": True} if file == "a.webp" else {"quality": 98}
    picture(COLOUR).save(tmp_path / file, exif=ODD_EXIF[name], **more)
    found = read(tmp_path / file)
    assert found.shape == COLOUR.shape
    assert np.abs(found - COLOUR).max() <= 12
    assert not recwarn.list


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """sRGB's profile with the primaries of red and blue in each other's place."""
    count = struct.unpack_from(">I", SRGB, 128)[0]
    entries = {SRGB[132 + 12 * i : 136 + 12 * i]: 132 + 12 * i for i in range(count)}
    changed = bytearray(SRGB)
    red, blue = entries[b"rXYZ"] + 4, entries[b"bXYZ"] + 4
    changed[red : red + 8], changed[blue : blue + 8] = SRGB[blue : blue + 8], SRGB[red : red + 8]
    return bytes(changed)


def padded(profile: bytes, size: int) -> bytes:
    """The same profile, larger: noise that no tag points to."""
    noise = np.random.default_rng(0).bytes(size - len(profile))
    return struct.pack(">I", size) + profile[4:] + noise


SWAPPED = swapped_profile()
PROFILES: dict[str, tuple[bytes, np.ndarray, int]] = {
    "another": (SWAPPED, COLOUR[..., ::-1], 2),
    "another, of 3 MB": (padded(SWAPPED, 3_000_000), COLOUR[..., ::-1], 2),
    "sRGB": (SRGB, COLOUR, 0),
    "broken": (SWAPPED[:200], COLOUR, 0),
    "noise": (bytes(range(256)), COLOUR, 0),
    "empty": (b"\0", COLOUR, 0),
}


@pytest.mark.parametrize("file", ["a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("name", PROFILES)
def test_a_colour_profile_is_followed_unless_it_is_broken(name, file, tmp_path):
    profile, expected, tolerance = PROFILES[name]
    more: dict[str, Any] = {"lossless": True} if file == "a.webp" else {}
    picture(COLOUR).save(tmp_path / file, icc_profile=profile, **more)
    assert np.abs(read(tmp_path / file) - expected).max() <= tolerance


def test_a_profile_of_colour_in_a_grey_picture_is_ignored(tmp_path):
    picture(GREY).save(tmp_path / "a.png", icc_profile=SWAPPED)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), grey_rgb())


@pytest.mark.parametrize("compressed", [True, False])
def test_long_texts_within_a_png_are_no_matter(compressed, tmp_path):
    """Generators keep their whole workflow there; Pillow stops at a mebibyte of one."""
    told = PngImagePlugin.PngInfo()
    for key in ("prompt", "workflow"):
        told.add_text(key, "x" * 5_000_000, zip=compressed)
    picture(COLOUR).save(tmp_path / "a.png", pnginfo=told)
    np.testing.assert_array_equal(read(tmp_path / "a.png"), COLOUR)
    assert PngImagePlugin.MAX_TEXT_CHUNK == ImageFile.SAFEBLOCK  # as it was


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


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """The bytes of a PNG that says that it is so large, and holds `data`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(kind: str) -> bytes:
    buffer = BytesIO()
    picture(COLOUR).save(buffer, kind)
    return buffer.getvalue()


WRONG: dict[str, tuple[str, bytes, str]] = {
    "text": ("a.jpg", b"dear reader", "is no picture that can be read here: save it as PNG or JPEG"),
    "heic": (
        "a.heic",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "is no picture that can be read here: save it as PNG or JPEG",
    ),
    "empty": ("a.png", b"", "is empty: copy or download it again"),
    "cut png": (
        "a.png",
        saved("PNG")[:-40],
        "is cut short or damaged: copy or download it again",
    ),
    "cut jpg": (
        "a.jpg",
        saved("JPEG")[:700],
        "is cut short or damaged: copy or download it again",
    ),
    "cut gif": (
        "a.gif",
        saved("GIF")[:900],
        "is cut short or damaged: copy or download it again",
    ),
    "noise in png": (
        "a.png",
        png(48, 32, b"no zlib stream"),
        "is cut short or damaged: copy or download it again",
    ),
    "40 000 pixels a side": (
        "a.png",
        png(40_000, 40_000),
        "has 40000 x 40000 pixels, of which 500 million can be read: save it smaller, or as JPEG",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_picture_that_cannot_be_read_is_named_with_its_cure(name, tmp_path):
    file, data, told = WRONG[name]
    (tmp_path / file).write_bytes(data)
    with pytest.raises(PictureError) as caught:
        read_picture(tmp_path / file, "control_image")
    assert str(caught.value) == f"control_image {str(tmp_path / file)!r} {told}"


@pytest.mark.parametrize("at", range(8, 4000, 97))
def test_a_flipped_byte_is_a_picture_or_one_line(at, tmp_path):
    """Whatever Pillow's decoders raise."""
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = bytearray(saved(kind))
        data[at % len(data)] ^= 0xFF
        (tmp_path / "a").write_bytes(data)
        with suppress(PictureError):
            assert read_picture(tmp_path / "a", "face").mode == "RGB"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((4, 4), np.nan, np.float32), "nan to nan"),
        (np.full((4, 4), -1, np.float32), "-1 to -1"),
        (np.full((4, 4), 1e9, np.float32), "1e+09 to 1e+09"),
        (np.full((4, 4), -5, np.int32), "-5 to -5"),
    ],
)
def test_numbers_that_are_no_grey_are_refused(values, told, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match=f"holds numbers from {told.replace('+', '[+]')}, which"):
        read_picture(tmp_path / "a.tif", "face")


def test_what_is_no_file_is_named(tmp_path, monkeypatch):
    with pytest.raises(PictureError, match=r"^face '.*a\.png' is not there: no such file$"):
        read_picture(tmp_path / "a.png", "face")
    with pytest.raises(PictureError, match=r"is a folder: name a picture$"):
        read_picture(tmp_path, "face")
    picture(COLOUR).save(tmp_path / "a.png")

    def locked(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", locked)  # root may read everything
    with pytest.raises(PictureError, match=r"may not be read: chmod u\+r, or name a copy$"):
        read_picture(tmp_path / "a.png", "face")
