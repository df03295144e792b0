"""InfiniteYou's control image: five keypoints of a face on black, drawn here or drawn already.

Follows pipelines/pipeline_infu_flux.py of github.com/bytedance/InfiniteYou (`resize_and_pad_image`,
`draw_kps`; the drawing is InstantID's). A door to OpenCV.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Real
from PIL import Image

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.faces import FaceError, Finder
from stepscope.probes.pictures import read_picture
from stepscope.probes.places import located

# Eyes, nose, corners of the mouth, the left of the picture first; limbs join each to the nose.
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
LIMBS = ((0, 2), (1, 2), (3, 2), (4, 2))
WIDTH, RADIUS, DIM = (
    4,
    10,
    0.6,
)  # half the width of a limb, a keypoint's circle, the limbs' brightness


@dataclass(frozen=True)
class Control:
    """The image that InfuseNet sees, and where the face of its photo was found ({} without one)."""

    image: Image.Image
    found: dict[str, Any] = field(default_factory=dict)


def load_control(
    path: str | None, kind: Literal["photo", "keypoints"], size: tuple[int, int], finder: Finder
) -> Control:
    """A run's control image, `size` (width, height); black if none is named, as InfiniteYou does.

    kind: see `Study`.
    Raises PictureError for a file that is no picture, StepscopeError for a photo without a face.
    """
    if path is None:
        return Control(Image.new("RGB", size))
    picture = read_picture(located(path), "control_image")
    if kind == "keypoints":
        return Control(picture)
    photo = resized_and_padded(picture, size)
    name = f"control_image {path!r}"
    try:
        keypoints, found = finder.find(np.asarray(photo)[:, :, ::-1].copy(), name)
    except FaceError as error:
        raise StepscopeError(
            f"{error}: name a photo with a face, or control_image_kind=keypoints for a drawing of keypoints"
        ) from error
    return Control(drawn(keypoints, size), found)


def resized_and_padded(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As wide as `size` (width, height), or as high where that is the shorter side, on white.

    Centred; what is longer than the longer side is cut off, and what is shorter leaves white.
    """
    fitted, place = fit(picture.size, size)
    found = Image.new("RGB", size, "white")
    found.paste(picture.resize(fitted, Image.Resampling.LANCZOS), place)
    return found


def fit(picture: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height of a picture in a frame of `size`, and its upper left corner in it; as above."""
    width, height = size
    if width <= height:
        fitted = (width, int(width * (picture[1] / picture[0])))
    else:
        fitted = (int(height * (picture[0] / picture[1])), height)
    # a strip that would lose its last pixel has no face, which is said later
    fitted = (max(1, fitted[0]), max(1, fitted[1]))
    return fitted, ((width - fitted[0]) // 2, (height - fitted[1]) // 2)


def keypoints_in(found: Mapping[str, Any], size: tuple[int, int]) -> Real[np.ndarray, "5 2"] | None:
    """Keypoints of a face that was found in a photo, where the photo is fitted into `size`.

    found: see `Finder.find`; None where it says no keypoints.
    """
    if "keypoints" not in found:
        return None
    fitted, place = fit(tuple(found["picture"]), size)
    scale = np.array(fitted) / np.array(found["picture"])
    return np.array(found["keypoints"]) * scale + np.array(place)


def drawn(keypoints: Real[np.ndarray, "5 2"], size: tuple[int, int]) -> Image.Image:
    """Limbs and circles of keypoints (x, y) in pixels, on black, `size` (width, height)."""
    canvas = np.zeros((size[1], size[0], 3))
    for limb in LIMBS:
        cv2.fillConvexPoly(canvas, _limb(keypoints[list(limb)]), COLOURS[limb[0]])
    canvas = (canvas * DIM).astype(np.uint8)
    for (x, y), colour in zip(keypoints, COLOURS, strict=True):
        cv2.circle(canvas, (int(x), int(y)), RADIUS, colour, -1)
    return Image.fromarray(canvas)


def _limb(ends: Real[np.ndarray, "2 2"]) -> np.ndarray:
    """The polygon of an ellipse from one keypoint to another, (corner, 2)."""
    (x, y), (x_nose, y_nose) = ends
    # in the keypoints' own precision, as published: half of it is cut to whole pixels
    length = ((x - x_nose) ** 2 + (y - y_nose) ** 2) ** 0.5
    angle = math.degrees(math.atan2(y - y_nose, x - x_nose))
    centre = (int(np.mean(ends[:, 0])), int(np.mean(ends[:, 1])))
    return np.asarray(cv2.ellipse2Poly(centre, (int(length / 2), WIDTH), int(angle), 0, 360, 1))
