"""The prompt of edited samples: does the final image obey it as much as before the edit?"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from stepscope.analysis.metrics.decode import Decode
from stepscope.analysis.metrics.kept_pictures import kept_pictures
from stepscope.analysis.metrics.metric import Metric, Quantity
from stepscope.probes.interventions.names import BEFORE


@dataclass(frozen=True)
class EditedPrompt(Metric):
    """A score of prompt and image, of the edited sample's final image and of the image without the edit.

    vae: as `decode` has it. device: where the models run.
    """

    vae: str | None = None
    device: str = "auto"
    reads: ClassVar[tuple[str, ...]] = ("final_latents", "base_image")
    variable: ClassVar[str]
    what: ClassVar[str]

    @abstractmethod
    def model(self) -> dict[str, Any]:
        """What decides the score, model files by hash. Raises WeightsError."""

    @abstractmethod
    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """Scores (image,) of images (image, row, column, rgb) uint8, each for its prompt."""

    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        ends = {
            "": "the edited sample's final image",
            BEFORE: "the sample's image without the edit",
        }
        return {
            self.variable + end: Quantity(
                (), "float32", "1", f"{self.what}, of {of}", "higher is better"
            )
            for end, of in ends.items()
        }

    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        return {**self.model(), "decode": self._decode.settings(run)}

    def load(self, run: xr.Dataset) -> None:
        self._decode.load(run)

    @property
    def _decode(self) -> Decode:
        return Decode(self.vae, self.device)

    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        prompts = samples["prompt"].values.tolist()
        edited = kept_pictures(
            self._decode.autoencoder(samples.attrs), samples["final_latents"].values
        )
        # the edits of a sample share one image and prompt
        before: dict[tuple[bytes, str], int] = {}
        images = samples["base_image"].values
        keys = [(image.tobytes(), prompt) for image, prompt in zip(images, prompts, strict=True)]
        first = [i for i, key in enumerate(keys) if before.setdefault(key, i) == i]
        scores = self.score(images[first], [prompts[i] for i in first])
        known = dict(zip(first, scores, strict=True))
        return {
            self.variable: self.score(edited, prompts),
            self.variable + BEFORE: np.array([known[before[key]] for key in keys], np.float32),
        }
