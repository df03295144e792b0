"""Turns, colour profiles and texts that stand in a picture's file are followed, or do no harm."""

import struct
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from tests.drawn import COLOUR, GREY, grey_rgb, picture, read

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
