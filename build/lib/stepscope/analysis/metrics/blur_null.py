"""A null for curves of x0: the final image, whose identity is constant, blurred to the sharpness of x0.

The posterior mean is blurred where sigma is high, and blur lowers a recogniser's similarity. Only where a
curve of x0 differs from this null does it show more than blur.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy import ndimage

from stepscope.analysis.metrics.arcface import Recognition, bgr, cosines
from stepscope.analysis.metrics.contrast import LONG_NAME, contrasts
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.metrics.panel import references
from stepscope.analysis.metrics.sharpness import (
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
"""Number of bisections in the search for the Gaussian's width."""


@dataclass(frozen=True)
class BlurNull(Recognition):
    """The final image, blurred by a Gaussian so that its face has the variance of the Laplacian of x0.

    image_size, face_size: as in `Sharpness`.
    """

    image_size: int | None = None
    face_size: int | None = None
    name: ClassVar[str] = "blur_null"
    reads: ClassVar[tuple[str, ...]] = (
        "image", "sharpness", "final_keypoints", "face_crop", "face_embedding",
    )  # fmt: skip

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        what = (
            "the final image, blurred by a Gaussian that gives its face the variance of the Laplacian of "
            "x0 at the step; NaN where no face was found in the final image"
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
            "null_contrast": Quantity(("step", "region"), "float32", "1", LONG_NAME.format(what)),
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
        return {**super().settings(run), **self.sharpness_metric().settings(run)}

    def sharpness_metric(self) -> Sharpness:
        """The sharpness metric that the blur has to match."""
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
            widths = self.widths(image, points[i, 0], target[i])
            frames = np.stack([blur(image, sigma) for sigma in widths])
            found["null_blur"][i] = widths
            found["null_sharpness"][i] = self.sharpness_metric().of(frames, points[i, 0])
            found["null_contrast"][i] = contrasts(frames, points[i, 0])
            for r, (_, encode, _) in enumerate(panel):
                where, who = (v[None].repeat(steps, 0) for v in (points[i, r], known[r][i]))
                found["null_similarity"][i, :, r] = cosines(encode, bgr(frames), where, who)
        return found

    def widths(self, image: np.ndarray, keypoints: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Standard deviations (step,) in pixels of the Gaussians that give the face the target sharpness.

        image: (row, column, rgb) uint8. keypoints: (5, 2) in pixels. target: (step,), the variance of the
        Laplacian of the face in x0.
        """
        rows, columns = around(keypoints, image.shape[:2])
        margin = 8  # pixels around the face, which the blur mixes into it
        top, left = max(0, rows.start - margin), max(0, columns.start - margin)
        part = image[top : rows.stop + margin, left : columns.stop + margin]
        inside = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        size = self.sharpness_metric().sizes(image.shape)[1]

        def sharp(sigma: float) -> float:
            face = luminance(blur(part, sigma)[None])[:, *inside]
            return float(laplacian(resized(face, size))[0])

        most = max(rows.stop - rows.start, columns.stop - columns.start) / 2
        return np.array([bisect(sharp, float(value), most) for value in target], np.float32)


def bisect(falling: Callable[[float], float], value: float, most: float) -> float:
    """Where a decreasing function on [0, most] has a value; the nearer end where it never does."""
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


def blur(image: np.ndarray, sigma: float | np.floating) -> np.ndarray:
    """An image (row, column, rgb) uint8, blurred by a Gaussian; sigma: standard deviation in pixels."""
    if sigma == 0:
        return image
    smooth = ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="mirror")
    return smooth.round().astype(np.uint8)
