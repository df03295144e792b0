"""Which two images a perceptual metric compares: three named pairs, shared by LPIPS and DINOv2.

reference: the final image's face and the reference face, both aligned to 112 x 112. many_step: the
final image and that of the same face, prompt and seed in a named run of more steps. The trajectory's
own: each step's decoded x0 and the run's final image.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.cells import cell_keys
from stepscope.analysis.metrics.metric import Direction, Metric, Quantity
from stepscope.analysis.runs import content, open_recorded
from stepscope.analysis.valid import images_there
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.recognisers import aligned

PAIRS = ("reference", "many_step")


class Comparison(ABC):
    """A number for each two images. what: it is called so; direction: of likeness."""

    what: ClassVar[str]
    direction: ClassVar[Direction]

    @abstractmethod
    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(n,) of images (n, row, column, rgb) uint8 and as many others, or one for all."""

    @abstractmethod
    def preflight(self) -> None:
        """As a metric's: the network, loaded on the CPU. Raises WeightsError."""

    @abstractmethod
    def network(self) -> Any:
        """The network, loaded once. Raises WeightsError."""

    @abstractmethod
    def model(self) -> dict[str, Any]:
        """What identifies the network, as JSON values. Raises WeightsError if it is unavailable."""


@dataclass(frozen=True)
class PairMetric(Comparison, Metric):
    """A comparison of the final images' pairs. many_step: path of the run of more steps, if any."""

    many_step: str | None = None
    reads: ClassVar[tuple[str, ...]] = ("image", "face_crop", "final_keypoints")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = (
            f"{self.what} of a pair: the final image's face to the reference's crop, both aligned to "
            "112 x 112 (NaN where either was not found), and the final image to that of the same face, "
            "prompt and seed in the run of more steps (NaN where none was named, or an image is "
            "not finite)"
        )
        return {self.name: Quantity(("pair",), "float32", "1", told, self.direction)}

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        return {"pair": ("pair", list(PAIRS))}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        other = self.many_step
        if other is None:
            return {"model": self.model(), "many_step": None}
        images = [content(Path(other), "image", i) for i in range(_other(other).sizes["sample"])]
        return {"model": self.model(), "many_step": images}

    def load(self, run: xr.Dataset) -> None:
        self.network()

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        images, crops = samples["image"].values, samples["face_crop"].values
        values = np.full((len(images), len(PAIRS)), np.nan, np.float32)
        keypoints = samples["final_keypoints"].values[:, 0]
        found = np.isfinite(keypoints).all((1, 2)) & crops.any((1, 2, 3))
        if found.any():
            here = zip(images[found], keypoints[found], strict=True)
            faces = np.stack([aligned(np.ascontiguousarray(i), k) for i, k in here])
            values[found, 0] = self.compare(faces, crops[found])
        if self.many_step is not None:
            run = _other(self.many_step)
            drawn = images_there(run)
            places = {key: i for i, key in enumerate(cell_keys(run["seed"])) if drawn[i]}
            rows = [places.get(key) for key in cell_keys(samples["seed"])]
            same = np.array([row is not None for row in rows])
            if same.any():
                others = run["image"].isel(sample=[r for r in rows if r is not None]).values
                values[same, 1] = self.compare(images[same], others)
        return {self.name: values}


@dataclass(frozen=True)
class StepMetric(Comparison, Metric):
    """A comparison of every step's x0 with the run's final image."""

    reads: ClassVar[tuple[str, ...]] = ("decoded", "image")

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        told = f"{self.what} of the step's decoded x0 and the same run's final image"
        return {self.name: Quantity(("step",), "float32", "1", told, self.direction)}

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {"model": self.model()}

    def load(self, run: xr.Dataset) -> None:
        self.network()

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        both = zip(samples["decoded"].values, samples["image"].values, strict=True)
        return {self.name: np.stack([self.compare(steps, last[None]) for steps, last in both])}


def _other(path: str) -> xr.Dataset:
    """The run of more steps. Raises StepscopeError if it has no images."""
    run = open_recorded(path)
    if "image" not in run:
        raise StepscopeError(f"many_step={path!r} has no final images to compare with")
    return run
