"""Likeness to the reference image by the judges of the pocket world: of looks, and of hats."""

from abc import abstractmethod
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
    """Cosine of a judge's embeddings: 0 for two designs that have nothing in common.

    Images are resized to 128 x 128 pixels.
    """

    key: ClassVar[str]
    """The setting that names the judge's `.onnx` file."""
    direction: ClassVar[Direction] = "higher is better"

    @property
    @abstractmethod
    def judge(self) -> str:
        """The judge's file."""

    def model(self) -> dict[str, Any]:
        if not located(self.judge).is_file():
            raise WeightsError(
                f"{self.key}: no file {self.judge!r}; name a judge of the pocket models' read-outs"
            )
        return {"files": digests(self.judge)}

    def preflight(self) -> None:
        self.model()
        self.network()

    def network(self) -> Any:
        return load(str(located(self.judge)), self.key)

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = (embedded(self.network(), images) for images in (first, second))
        return (a * b).sum(-1)


@dataclass(frozen=True)
class PocketLook(PocketLikeness):
    """By the judge of looks: two pictures of one palette, line and texture are alike."""

    pocket_look: str = "pocket/models/readout/looks.onnx"
    key: ClassVar[str] = "pocket_look"
    what: ClassVar[str] = "cosine of the pocket judge of looks"

    @property
    def judge(self) -> str:
        return self.pocket_look


@dataclass(frozen=True)
class PocketHat(PocketLikeness):
    """By the judge of hats: two pictures of one hat are alike."""

    pocket_hat: str = "pocket/models/readout/hats.onnx"
    key: ClassVar[str] = "pocket_hat"
    what: ClassVar[str] = "cosine of the pocket judge of hats"

    @property
    def judge(self) -> str:
        return self.pocket_hat


@dataclass(frozen=True)
class ReferenceLookPocket(ToReference, PocketLook):
    """Likeness of the final image to the reference image in its look."""

    name: ClassVar[str] = "reference_look_pocket"


@dataclass(frozen=True)
class ReferenceLookPocketStep(StepToReference, PocketLook):
    """Likeness of each step's x0 to the reference image in its look."""

    name: ClassVar[str] = "reference_look_pocket_step"


@dataclass(frozen=True)
class EditedReferenceLookPocket(EditedToReference, PocketLook):
    """Likeness of an edited sample's final image to the reference image in its look."""

    name: ClassVar[str] = "edited_reference_look_pocket"


@dataclass(frozen=True)
class ReferenceHatPocket(ToReference, PocketHat):
    """Likeness of the final image to the reference image in its hat."""

    name: ClassVar[str] = "reference_hat_pocket"


@dataclass(frozen=True)
class ReferenceHatPocketStep(StepToReference, PocketHat):
    """Likeness of each step's x0 to the reference image in its hat."""

    name: ClassVar[str] = "reference_hat_pocket_step"


@dataclass(frozen=True)
class EditedReferenceHatPocket(EditedToReference, PocketHat):
    """Likeness of an edited sample's final image to the reference image in its hat."""

    name: ClassVar[str] = "edited_reference_hat_pocket"


@cache
def load(path: str, key: str) -> Any:
    """The judge's session. key: the setting that names it.

    Raises WeightsError for a file that is not a pocket judge.
    """
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own
        raise WeightsError(f"{key}: {path!r} cannot be read as an .onnx file") from error
    (given, *more), outputs = session.get_inputs(), [one.name for one in session.get_outputs()]
    if more or list(given.shape[1:]) != [3, SIDE, SIDE] or outputs != ["embedding"]:
        raise WeightsError(f"{key}: {path!r} is not a judge of looks or of hats")
    return session


def embedded(session: Any, images: np.ndarray) -> np.ndarray:
    """Unit-norm embeddings (image, 64) of images (image, row, column, rgb) uint8."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[-2:] != (SIDE, SIDE):
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: part.numpy()})[0] for part in pixels.split(BATCH)]
    return np.concatenate(found)
