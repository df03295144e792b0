"""A null for curves of x0: the final image, whose identity is what it is, blurred to x0's sharpness.

A posterior mean is blurred where sigma is high, and a judge reads less from a blurred face. So a curve
of x0 that leaves this one says more than that x0 is blurred; one that does not, does not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy import ndimage

from analysis.metrics.arcface import Recognition, bgr, cosines
from analysis.metrics.contrast import TOLD, contrasts
from analysis.metrics.metric import Quantity
from analysis.metrics.panel import references
from analysis.metrics.sharpness import (
    MEASURES,
    REGIONS,
    Sharpness,
    around,
    laplacian,
    luminance,
    resized,
)

MATCHED = "laplacian"
HALVINGS = 12
"""Of the interval in which the Gaussian lies."""


@dataclass(frozen=True)
class BlurNull(Recognition):
    """The final image under a Gaussian, so wide that its face's Laplacian has x0's variance at the step.

    image_size, face_size: as in `Sharpness`, whose measure and sizes these are.
    """

    image_size: int | None = None
    face_size: int | None = None
    name: ClassVar[str] = "blur_null"
    reads: ClassVar[tuple[str, ...]] = (
        "image", "sharpness", "final_keypoints", "face_crop", "face_embedding",
    )  # fmt: skip

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        what = (
            "the final image under a Gaussian that gives its face x0's variance of the Laplacian at the "
            "step; NaN where no face was found in the final image"
        )
        return {
            "null_similarity": Quantity(
                ("step", "recogniser"),
                "float32",
                "1",
                f"cosine to the reference face, by the final image's keypoints, of {what}",
            ),
            "null_sharpness": Quantity(
                ("step", "region", "measure"), "float32", "1", f"sharpness, as of x0, of {what}"
            ),
            "null_contrast": Quantity(("step", "region"), "float32", "1", TOLD.format(what)),
            "null_blur": Quantity(
                ("step",),
                "float32",
                "pixel",
                "standard deviation of that Gaussian; 0 where x0 is as sharp as the final image",
            ),
        }

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        axes = {"region": ("region", list(REGIONS)), "measure": ("measure", list(MEASURES))}
        return {**super().coordinates(run), **axes}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {**super().settings(run), **self.measure().settings(run)}

    def measure(self) -> Sharpness:
        """What sharpness is here."""
        return Sharpness(self.image_size, self.face_size)

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        images, points = samples["image"].values, samples["final_keypoints"].values
        target = samples["sharpness"].sel(region="face", measure=MATCHED).values
        panel = self.encoders(samples)
        known = [references(one, encode, samples) for one, encode, _ in panel]
        n, steps = target.shape
        found = {
            "null_similarity": np.full((n, steps, len(panel)), np.nan, np.float32),
            "null_sharpness": np.full((n, steps, len(REGIONS), len(MEASURES)), np.nan, np.float32),
            "null_contrast": np.full((n, steps, len(REGIONS)), np.nan, np.float32),
            "null_blur": np.full((n, steps), np.nan, np.float32),
        }
        for i, image in enumerate(images):
            if not np.isfinite(points[i, 0]).all():
                continue
            blurs = self.widths(image, points[i, 0], target[i])
            frames = np.stack([blurred(image, sigma) for sigma in blurs])
            found["null_blur"][i] = blurs
            found["null_sharpness"][i] = self.measure().of(frames, points[i, 0])
            found["null_contrast"][i] = contrasts(frames, points[i, 0])
            for r, (_, encode, _) in enumerate(panel):
                where, who = (v[None].repeat(steps, 0) for v in (points[i, r], known[r][i]))
                found["null_similarity"][i, :, r] = cosines(encode, bgr(frames), where, who)
        return found

    def widths(self, image: np.ndarray, keypoints: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The Gaussian's standard deviation (step,) in pixels at which the face has each Laplacian."""
        rows, columns = around(keypoints, image.shape[:2])
        margin = 8  # of pixels beside the face that come into it with the blur
        top, left = max(0, rows.start - margin), max(0, columns.start - margin)
        part = image[top : rows.stop + margin, left : columns.stop + margin]
        inside = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        size = self.measure().sizes(image.shape)[1]

        def sharp(sigma: float) -> float:
            face = luminance(blurred(part, sigma)[None])[:, *inside]
            return float(laplacian(resized(face, size))[0])

        most = max(rows.stop - rows.start, columns.stop - columns.start) / 2
        return np.array([bisected(sharp, float(value), most) for value in target], np.float32)


def bisected(falling: Callable[[float], float], value: float, most: float) -> float:
    """Where a falling function of [0, most] has a value; the nearer end where it never has."""
    if not falling(0.0) > value:
        return 0.0
    low, high = 0.0, most
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if falling(middle) > value:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def blurred(image: np.ndarray, sigma: float | np.floating) -> np.ndarray:
    """An image (row, column, rgb) uint8 under a Gaussian of that standard deviation in pixels."""
    if sigma == 0:
        return image
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="mirror")
    return smooth.round().astype(np.uint8)
