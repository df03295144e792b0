"""Of a picture that cannot be read one line says what is wrong with it."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepscope.probes.pictures import PictureError, read_picture
from tests.drawn import COLOUR, picture


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
