"""Likeness to the reference image: of final images, each step's x0, and edited samples, by any network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.decode import Decode
from stepscope.analysis.metrics.kept_pictures import kept_pictures
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
        values = by_reference(self, samples["image"].values, samples["reference_image"].values)
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


@dataclass(frozen=True)
class EditedToReference(Comparison, Metric):
    """A comparison of an edited sample's final image with its reference image, the one of the whole run.

    vae: as `decode` has it.
    """

    vae: str | None = None
    device: str = "auto"
    reads: ClassVar[tuple[str, ...]] = ("final_latents", "reference_image")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = (
            f"{self.what} of the edited sample's final image and the reference image; NaN where a sample "
            "has none, or its latents are not finite"
        )
        return {self.name: Quantity((), "float32", "1", told, self.direction)}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {"model": self.model(), "decode": self._decode.settings(run)}

    def load(self, run: xr.Dataset) -> None:
        self.network()
        self._decode.load(run)

    @property
    def _decode(self) -> Decode:
        return Decode(self.vae, self.device)

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        latents, references = samples["final_latents"].values, samples["reference_image"].values
        values = np.full(len(latents), np.nan, np.float32)
        here = np.flatnonzero(np.isfinite(latents).all((1, 2, 3)))
        if len(here):
            images = kept_pictures(self._decode.autoencoder(samples.attrs), latents[here])
            values[here] = by_reference(self, images, references[here])
        return {self.name: values}


def by_reference(how: Comparison, images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """A comparison (n,) of images and their references (n, row, column, rgb); NaN of a black reference.

    Images of one reference are compared together: it is embedded once for all of them.
    """
    values, alike = np.full(len(images), np.nan, np.float32), dict[bytes, list[int]]()
    for i, reference in enumerate(references):
        if reference.any():
            alike.setdefault(reference.tobytes(), []).append(i)
    for rows in alike.values():
        values[rows] = how.compare(images[rows], references[rows[:1]])
    return values
