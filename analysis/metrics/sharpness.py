"""Sharpness of x0 along the run: variance of the Laplacian, Tenengrad, and high-frequency share.

All three rise with noise as well as with detail, so they are read of the decoded x0, together.
Which size, which luminance and which kernels is our choice: the papers that use them do not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from scipy import ndimage
from torch.nn import functional

from stepscope.analysis.metrics.metric import Metric, Quantity

REGIONS = ("image", "face")
FACE_ONLY = MappingProxyType({"final_keypoints": "of the face"})
"""Without a recogniser the whole image is measured, and no face in it."""
MEASURES = ("laplacian", "tenengrad", "high_frequency")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
LARGEST = 512
FACE_SPREAD = 2.4  # side of the face crop over the largest distance between two keypoints
HIGH = 0.25  # cycles a pixel from which a frequency is called high: half of the highest


@dataclass(frozen=True)
class Sharpness(Metric):
    """Sharpness at a fixed size of the whole image, and of a square around the final image's face.

    image_size: pixels of the image's shorter side when it is measured, None for its own up to 512;
    face_size: of the face's square, None for half of that.
    """

    image_size: int | None = None
    face_size: int | None = None
    name: ClassVar[str] = "sharpness"
    revision: ClassVar[int] = 2  # 1 took the Tenengrad across neighbouring steps
    reads: ClassVar[tuple[str, ...]] = ("decoded", "final_keypoints")
    optional: ClassVar[Mapping[str, str]] = FACE_ONLY

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        return {
            "sharpness": Quantity(
                ("step", "region", "measure"),
                "float32",
                "1",
                "sharpness of the decoded x0, of its luminance (BT.601, 0 to 1) at a fixed size: "
                "laplacian is the variance of the 4-neighbour Laplacian, tenengrad the mean squared "
                "Sobel gradient (kernels of absolute sum 8), high_frequency the share of the power "
                "spectrum without its mean above 0.25 cycles a pixel under a Hann window. face: the square "
                "around the final image's keypoints, NaN where none was found there, or looked for",
            )
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {"region": ("region", list(REGIONS)), "measure": ("measure", list(MEASURES))}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {
            "image_size": self.image_size or f"own, up to {LARGEST}",
            "face_size": self.face_size or "half of the image's",
            "face_spread": FACE_SPREAD,
        }

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        both = zip(samples["decoded"].values, final_keypoints(samples), strict=True)
        return {"sharpness": np.stack([self.of(frames, points) for frames, points in both])}

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Shorter side, in pixels, at which an image (row, column, ...) and its face are measured."""
        image = self.image_size or min(*shape[:2], LARGEST)
        return image, self.face_size or image // 2

    def of(self, frames: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """(n, region, measure) of images (n, row, column, rgb) uint8 around a face's keypoints (5, 2)."""
        grey = luminance(frames)
        image, face = self.sizes(grey.shape[1:])
        found = np.full((len(frames), len(REGIONS), len(MEASURES)), np.nan, np.float32)
        found[:, 0] = measures(resized(grey, image))
        if np.isfinite(keypoints).all():
            rows, columns = around(keypoints, grey.shape[1:])
            found[:, 1] = measures(resized(grey[:, rows, columns], face))
        return found


def final_keypoints(samples: xr.Dataset) -> np.ndarray:
    """Keypoints (sample, 5, 2) of the final image by the first recogniser's pack, in pixels.

    NaN where there is no face, and where nobody looked for one.
    """
    if "final_keypoints" in samples:
        return samples["final_keypoints"].values[:, 0]
    return np.full((samples.sizes["sample"], 5, 2), np.nan, np.float32)


def luminance(images: np.ndarray) -> np.ndarray:
    """(n, row, column) float32 in [0, 1] of (n, row, column, rgb) uint8."""
    return images @ (LUMA / 255)


def around(keypoints: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the square around a face, moved inside the image, never beyond its sides."""
    apart = keypoints[:, None] - keypoints[None]
    side = int(np.ceil(FACE_SPREAD * np.sqrt((apart**2).sum(-1)).max()))
    side = int(np.clip(side, 1, min(shape)))
    middle = (keypoints.min(0) + keypoints.max(0)) / 2
    left, top = (
        int(np.clip(round(float(m) - side / 2), 0, n - side))
        for m, n in zip(middle, shape[::-1], strict=True)
    )
    return slice(top, top + side), slice(left, left + side)


def resized(grey: np.ndarray, size: int) -> np.ndarray:
    """Images (n, row, column) with their shorter side at `size`, without aliasing."""
    shorter = min(grey.shape[1:])
    if shorter == size:
        return grey
    sides = [round(side * size / shorter) for side in grey.shape[1:]]
    pixels = torch.from_numpy(np.ascontiguousarray(grey))[:, None]
    return functional.interpolate(pixels, sides, mode="bilinear", antialias=True)[:, 0].numpy()


def measures(grey: np.ndarray) -> np.ndarray:
    """(n, measure) of images (n, row, column)."""
    return np.stack([laplacian(grey), tenengrad(grey), high_frequency(grey)], -1)


def laplacian(grey: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian (Pech-Pacheco et al. 2000), mirrored at the border."""
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], grey.dtype)
    return ndimage.convolve(grey, kernel[None], mode="mirror").var((1, 2))


def tenengrad(grey: np.ndarray) -> np.ndarray:
    """Mean squared Sobel gradient (Tenenbaum 1970; Krotkov 1988), mirrored at the border."""
    kernel = np.outer([1, 2, 1], [-1, 0, 1]).astype(grey.dtype)
    across, down = (ndimage.convolve(grey, k[None], mode="mirror") for k in (kernel, kernel.T))
    return (across**2 + down**2).mean((1, 2))


def high_frequency(grey: np.ndarray) -> np.ndarray:
    """Share of the power spectrum, without the mean, above `HIGH` cycles a pixel; NaN if it is flat."""
    rows, columns = grey.shape[1:]
    window = np.hanning(rows)[:, None] * np.hanning(columns)
    mean = (grey * window).sum((1, 2), keepdims=True) / window.sum()
    power = np.abs(np.fft.fft2((grey - mean) * window)) ** 2
    radius = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.fftfreq(columns))
    total = power.sum((1, 2))
    with np.errstate(invalid="ignore"):
        return np.where(total > 1e-12, power[:, radius >= HIGH].sum(1) / total, np.nan)
