"""Likeness to the reference image by a judge of the pocket world: of looks, or of hats."""

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import torch
from torch.nn import functional

from stepscope.analysis.metrics.metric import Direction, digests
from stepscope.analysis.metrics.pairs import Comparison
from stepscope.analysis.metrics.to_reference import (
    EditedToReference,
    StepToReference,
    ToReference,
)
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError

SIDE, BATCH = 128, 32


@dataclass(frozen=True)
class PocketLikeness(Comparison):
    """Cosine of the judge's embeddings: 0 for two looks, or two hats, that have nothing in common.

    pocket_judge: the judge's `.onnx` file. Images are resized to 128 x 128 pixels.
    """

    pocket_judge: str = "pocket/models/readout/looks.onnx"
    what: ClassVar[str] = "cosine of a pocket judge's embeddings"
    direction: ClassVar[Direction] = "higher is better"

    def model(self) -> dict[str, Any]:
        if not located(self.pocket_judge).is_file():
            raise WeightsError(
                f"pocket_judge: no file {self.pocket_judge!r}; name looks.onnx or hats.onnx of the pocket "
                "models' read-outs"
            )
        return {"files": digests(self.pocket_judge)}

    def preflight(self) -> None:
        self.model()
        self.network()

    def network(self) -> Any:
        return load(str(located(self.pocket_judge)))

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = (embedded(self.network(), images) for images in (first, second))
        return (a * b).sum(-1)


@dataclass(frozen=True)
class ReferencePocket(ToReference, PocketLikeness):
    """A pocket judge's likeness of the final image to the reference image."""

    name: ClassVar[str] = "reference_pocket"


@dataclass(frozen=True)
class ReferencePocketStep(StepToReference, PocketLikeness):
    """A pocket judge's likeness of each step's x0 to the reference image."""

    name: ClassVar[str] = "reference_pocket_step"


@dataclass(frozen=True)
class EditedReferencePocket(EditedToReference, PocketLikeness):
    """A pocket judge's likeness of an edited sample's final image to the reference image."""

    name: ClassVar[str] = "edited_reference_pocket"


@cache
def load(path: str) -> Any:
    """The judge's session. Raises WeightsError for a file that is not a pocket judge."""
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own
        raise WeightsError(f"pocket_judge: {path!r} cannot be read as an .onnx file") from error
    (given, *more), outputs = session.get_inputs(), [one.name for one in session.get_outputs()]
    if more or list(given.shape[1:]) != [3, SIDE, SIDE] or outputs != ["embedding"]:
        raise WeightsError(f"pocket_judge: {path!r} is not a judge of looks or of hats")
    return session


def embedded(session: Any, images: np.ndarray) -> np.ndarray:
    """Unit-norm embeddings (image, 64) of images (image, row, column, rgb) uint8."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[-2:] != (SIDE, SIDE):
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: part.numpy()})[0] for part in pixels.split(BATCH)]
    return np.concatenate(found)
