"""Small pictures that tests draw, and read back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from stepscope.probes.pictures import read_picture

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
