"""Likeness to the reference image: of the final image, and of each step's x0, shared by all networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.metric import Metric, Quantity
from stepscope.analysis.metrics.pairs import Comparison


@dataclass(frozen=True)
class ToReference(Comparison, Metric):
    """A comparison of the final image with the sample's reference image."""

    reads: ClassVar[tuple[str, ...]] = ("image", "reference_image")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = (
            f"{self.what} of the final image and the reference image; NaN where a sample has none"
        )
        return {self.name: Quantity((), "float32", "1", told, self.direction)}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {"model": self.model()}

    def load(self, run: xr.Dataset) -> None:
        self.network()

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        """Samples of one reference are compared together: it is embedded once for all of them."""
        images, references = samples["image"].values, samples["reference_image"].values
        values, alike = np.full(len(images), np.nan, np.float32), dict[bytes, list[int]]()
        for i, reference in enumerate(references):
            if reference.any():
                alike.setdefault(reference.tobytes(), []).append(i)
        for rows in alike.values():
            values[rows] = self.compare(images[rows], references[rows[:1]])
        return {self.name: values}


@dataclass(frozen=True)
class StepToReference(Comparison, Metric):
    """A comparison of every step's x0 with the sample's reference image."""

    reads: ClassVar[tuple[str, ...]] = ("decoded", "reference_image")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = (
            f"{self.what} of the step's decoded x0 and the reference image; NaN where a sample has none, "
            "and of steps that did not run or are not finite"
        )
        return {self.name: Quantity(("step",), "float32", "1", told, self.direction)}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {"model": self.model()}

    def load(self, run: xr.Dataset) -> None:
        self.network()

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        values = np.full(samples["decoded"].shape[:2], np.nan, np.float32)
        both = zip(samples["decoded"].values, samples["reference_image"].values, strict=True)
        for i, (steps, reference) in enumerate(both):
            if reference.any():
                values[i] = self.compare(steps, reference[None])
        return {self.name: values}
