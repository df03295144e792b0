"""The picture of a step: its decoded x0, or where it was not decoded, a linear map of its channels.

The linear map from a latent's channels to colours is fitted by least squares to the sample's own final
latents and final image, the image averaged over the pixels of each latent: no constants of a model.
"""

import io
import threading
from collections import OrderedDict
from typing import Literal

import numpy as np
from PIL import Image

from stepscope.analysis.explore.source import Contents, ExploreError, Source, rows

Kind = Literal["decoded", "approximate", "none"]
QUALITY = 90
WEBP = 2**18
"""Pixels up to which a picture is WebP, which is smaller; beyond, JPEG is several times as fast."""
LARGEST = 1024
KEPT = 12
"""Samples whose encoded pictures are kept: scrubbing reads a sample's pictures once."""

_made: OrderedDict[tuple, list[bytes]] = OrderedDict()
_lock = threading.Lock()


def picture_kind(source: Source, sample: int) -> tuple[Kind, str]:
    """What the pictures of a sample are, and in words why they are not more."""
    contents = source.contents()
    if "decoded" in contents.measured and contents.is_measured("decoded", sample):
        return "decoded", ""
    cure = f"Decoded pictures and identity: {source.command()}"
    if _approximable(contents):
        told = "x0 was not decoded. Colours are a linear map of the latents, fitted to the final image."
        return "approximate", f"{told} {cure}"
    return "none", f"x0 was not decoded. {cure}"


def _approximable(contents: Contents) -> bool:
    names = ("x0", "final_latents", "image")
    if not all(name in contents.recorded for name in names):
        return False
    image, latents = contents.recorded["image"], contents.recorded["final_latents"]
    shapes = zip(image.shape[1:3], latents.shape[2:], strict=False)
    return latents.ndim == 4 and all(a >= b and a % b == 0 for a, b in shapes)


def frames(source: Source, sample: int, largest: int = LARGEST) -> list[bytes]:
    """The picture of every step as WebP or JPEG; empty bytes for a step that did not run.

    largest: pixels of the longer side at most. Raises ExploreError where there are no pictures.
    """
    contents = source.contents()
    kind, note = picture_kind(source, sample)
    key = (source.text, contents.version, sample, kind, largest)
    with _lock:
        if key in _made:
            _made.move_to_end(key)
            return _made[key]
        if kind == "none" or not contents.is_done(sample):
            raise ExploreError(note or f"sample {sample} is not finished")
        pictures = _decoded(contents, sample) if kind == "decoded" else _linear(contents, sample)
        made = [b"" if picture is None else encoded(picture, largest) for picture in pictures]
        _made[key] = made
        while len(_made) > KEPT:
            _made.popitem(last=False)
        return made


def face(source: Source, sample: int) -> np.ndarray | None:
    """The aligned reference face (row, column, rgb) of the sample; None without one."""
    contents = source.contents()
    for group in (contents.recorded, contents.measured):
        if "face_crop" in group:
            crop = rows(group["face_crop"], sample)
            return crop if crop.any() else None
    return None


def _decoded(contents: Contents, sample: int) -> list[np.ndarray | None]:
    decoded = rows(contents.measured["decoded"], sample)
    ran = _ran(contents, sample, len(decoded))
    return [picture if there else None for picture, there in zip(decoded, ran, strict=True)]


def _ran(contents: Contents, sample: int, steps: int) -> list[bool]:
    """Which steps were run: an interrupted call ran the first ones."""
    if "steps_run" not in contents.recorded:
        return [True] * steps
    count = int(contents.recorded["steps_run"][sample].values)
    return [count < 0 or step < count for step in range(steps)]


def _linear(contents: Contents, sample: int) -> list[np.ndarray | None]:
    recorded = contents.recorded
    x0, final, image = (
        rows(recorded[n], sample).astype(np.float64) for n in ("x0", "final_latents", "image")
    )
    weights = fitted(final, image)
    if weights is None:
        return [None] * len(x0)
    pictures: list[np.ndarray | None] = []
    for latents in x0:
        if not np.isfinite(latents).all():
            pictures.append(None)
            continue
        colours = (_channels(latents) @ weights).clip(0, 255).round().astype(np.uint8)
        pictures.append(colours.reshape(*final.shape[1:], 3))
    return pictures


def fitted(latents: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """Weights (channel + 1, rgb) that map latents (channel, y, x) to an image (row, column, rgb).

    None where the latents are not finite, as those of a sample without its last step.
    """
    if not np.isfinite(latents).all():
        return None
    _, y, x = latents.shape
    blocks = image.reshape(y, image.shape[0] // y, x, image.shape[1] // x, 3).mean((1, 3))
    return np.linalg.lstsq(_channels(latents), blocks.reshape(-1, 3), rcond=None)[0]


def _channels(latents: np.ndarray) -> np.ndarray:
    """Latents (channel, y, x) as rows of channels and a constant: (y x, channel + 1)."""
    flat = latents.reshape(len(latents), -1).T
    return np.concatenate([flat, np.ones((len(flat), 1))], 1)


def encoded(picture: np.ndarray, largest: int) -> bytes:
    """A picture (row, column, rgb) uint8, no side longer than `largest`: as WebP, a large one as JPEG."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if max(image.size) > largest:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    small = image.width * image.height <= WEBP
    image.save(target, "WEBP" if small else "JPEG", quality=QUALITY)
    return target.getvalue()


def media_type(picture: bytes) -> str:
    """What an encoded picture is called on the web."""
    return "image/webp" if picture[:4] == b"RIFF" else "image/jpeg"
