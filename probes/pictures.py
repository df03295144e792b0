"""Picture files as upright 8-bit sRGB: the one door by which faces and control images come in."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from stepscope.hooks.errors import StepscopeError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2")
SUFFIXES += (
    ".avif",
    ".heic",
    ".heif",
)  # not every Pillow reads these: better refused than left out
"""Names that a folder's pictures end in."""

MANY = 2**30 // 12
"""Pixels past which a picture is read smaller: Pillow's own bound, a quarter of a gigabyte of RGB."""
MOST = 500_000_000
"""Pixels that are decoded at once, one and a half gigabytes of RGB; a JPEG is decoded smaller."""
TEXT = 2**26
"""Bytes of one text or colour profile within a PNG; Pillow's bound is a mebibyte."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes an EXIF orientation (EXIF 2.32, tag 0x0112); 1 is upright."""


class PictureError(StepscopeError):
    """A file that cannot be read as a picture."""


def read_picture(path: Path, what: str) -> Image.Image:
    """The picture of a file, RGB, of an animation the first.

    Upright by its EXIF orientation; what is transparent is laid on white, as InfiniteYou pads; a
    colour profile is converted to sRGB, one that is sRGB to a level keeps the pixels' bits, and a
    broken one is ignored as broken EXIF is. Grey of 16 bits is scaled from 0 to 65535; of 32 bits,
    whole or real, from 0 to the first of 1 (real alone), 255, 65535 and 2^31 - 1 that it stays below.
    More than `MANY` pixels are read smaller by a whole factor.

    what: `face`, or the setting that named the file. Raises PictureError in one line.
    """
    name = f"{what} {str(path)!r}"
    with _told(name), _without_bounds():
        if path.is_dir():
            raise PictureError(f"{name} is a folder: name a picture")
        if not path.stat().st_size:
            raise PictureError(f"{name} is empty: copy or download it again")
        with Image.open(path) as file:
            _decode(file, name)
            profile, method = file.info.get("icc_profile"), UPRIGHT.get(_orientation(file))
            picture = _smaller(_on_white(_eight_bits(file, name)))
        picture = _srgb(picture, profile)
        return picture if method is None else picture.transpose(method)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Every way in which reading a picture fails, as one line with its cure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of broken EXIF, which is ignored, and of large pictures
            yield
    except (StepscopeError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise PictureError(f"{name} is not there: no such file") from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read: chmod u+r, or name a copy") from error
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is no picture that can be read here: save it as PNG or JPEG"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise PictureError(f"{name} cannot be read: {error.strerror}") from error
        raise PictureError(f"{name} is cut short or damaged: copy or download it again") from error
    except Exception as error:  # Pillow's decoders raise whatever they meet
        raise PictureError(f"{name} is damaged: copy it again, or save it as PNG") from error


@contextmanager
def _without_bounds() -> Iterator[None]:
    """Pillow's bounds against forged files, which honest scans pass too, give way to ours."""
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, TEXT
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * TEXT
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before[0]
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = before[1:]


def _factor(image: Image.Image) -> int:
    return ceil(sqrt(image.width * image.height / MANY))


def _decode(file: Any, name: str) -> None:
    """Load the pixels; a very large JPEG at a half, a quarter or an eighth of its size."""
    factor, (width, height) = _factor(file), file.size
    if factor > 1:
        file.draft(None, (width // factor, height // factor))
    if file.width * file.height > MOST:
        raise PictureError(
            f"{name} has {width} x {height} pixels, of which {MOST // 10**6} million can be read: "
            "save it smaller, or as JPEG"
        )
    file.load()


def _smaller(picture: Image.Image) -> Image.Image:
    factor = _factor(picture)
    return picture.reduce(factor) if factor > 1 else picture


def _orientation(file: Image.Image) -> Any:
    """The EXIF orientation, 1 where there is none that can be read. TIFF's was applied by decoding."""
    try:
        return file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a parser of foreign bytes raises whatever it meets
        return 1


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of more than 8 bits as `L`; any other picture as it is."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image)
    if image.mode != "F" and (image.mode != "I" or image.format == "PNG"):  # PNG: an older Pillow's
        table = np.arange(2**16, dtype=np.uint32)
        return Image.fromarray(((table * 255 + 32767) // 65535).astype(np.uint8)[values])
    real = image.mode == "F"
    over = 0.1 * real  # resampling oversteps black and white a little
    whites = (1, 255, 65535) if real else (255, 65535, 2**31 - 1)
    low, high = float(values.min()), float(values.max())
    white = next((white for white in whites if high <= (1 + over) * white), None)
    if white is None or not low >= -over * white:
        raise PictureError(
            f"{name} holds numbers from {low:g} to {high:g}, which are not grey levels: save it with 8 bits"
        )
    return Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """Without transparency, as `L`, `RGB` or `CMYK`."""
    if image.has_transparency_data:
        grey = image.mode in ("LA", "La")
        picture = image.convert("LA" if grey else "RGBA")
        alpha, colour = picture.getchannel("A"), picture.convert("L" if grey else "RGB")
        return Image.composite(colour, Image.new(colour.mode, colour.size, "white"), alpha)
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _srgb(picture: Image.Image, profile: Any) -> Image.Image:
    """The picture in sRGB by its ICC profile; as it is without one, or with one that is broken."""
    if isinstance(profile, bytes):
        try:
            source: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb: Any = ImageCms.createProfile("sRGB")
            transform = ImageCms.buildTransform(source, srgb, picture.mode, "RGB")
            if picture.mode == "CMYK" or _moves(transform, picture.mode):
                return transform.apply(picture)
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # broken, or of a picture of another kind: an RGB profile in a grey JPEG is common
    return picture.convert("RGB")


def _moves(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform to sRGB moves a colour by more than a level: sRGB's own only rounds."""
    levels = np.linspace(0, 255, 16).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(64, 64, 3)
    before = Image.fromarray(colours[..., 0] if mode == "L" else colours)
    moved = np.asarray(transform.apply(before)).astype(int) - np.asarray(before.convert("RGB"))
    return bool(np.abs(moved).max() > 1)
