"""Contrast of x0 along the run: the standard deviation of its luminance, RMS contrast (Peli 1990).

The measure of contrast is our choice: the paper names none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.metric import Metric, Quantity
from stepscope.analysis.metrics.sharpness import (
    FACE_ONLY,
    REGIONS,
    around,
    final_keypoints,
    luminance,
)

LONG_NAME = (
    "RMS contrast, the standard deviation of the luminance (BT.601, 0 to 1), of {}. face: the square "
    "around the final image's keypoints, NaN where none was found there, or looked for; our definition"
)


@dataclass(frozen=True)
class Contrast(Metric):
    """RMS contrast of the whole image, and of the square around the final image's face."""

    name: ClassVar[str] = "contrast"
    reads: ClassVar[tuple[str, ...]] = ("decoded", "final_keypoints")
    optional: ClassVar[Mapping[str, str]] = FACE_ONLY

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        text = LONG_NAME.format("the decoded x0")
        return {"contrast": Quantity(("step", "region"), "float32", "1", text)}

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {"region": ("region", list(REGIONS))}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {}

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        both = zip(samples["decoded"].values, final_keypoints(samples), strict=True)
        return {"contrast": np.stack([contrasts(frames, points) for frames, points in both])}


def contrasts(frames: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """RMS contrast (image, region), 0 to 0.5, of images (image, row, column, rgb) uint8.

    keypoints: (5, 2) in pixels, of the face in all of them; NaN gives NaN for the face.
    """
    grey = luminance(frames)
    found = np.full((len(frames), len(REGIONS)), np.nan, np.float32)
    found[:, 0] = grey.std((1, 2))
    if np.isfinite(keypoints).all():
        rows, columns = around(keypoints, grey.shape[1:])
        found[:, 1] = grey[:, rows, columns].std((1, 2))
    return found
