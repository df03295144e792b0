"""A perceptual distance: LPIPS's formula (Zhang et al. 2018, eq. 1) over the pocket recogniser's layers.

It is not LPIPS: it has another network, other weights, and is not calibrated on human judgements. LPIPS's
networks were trained on photographs, the pocket recogniser on the painted faces of the pocket models, for
which it replaces LPIPS. Its layers are the evaluation recogniser's, so that it is no independent measure
of identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import torch
from torch.nn import functional

from stepscope.analysis.metrics.metric import Direction, digests
from stepscope.analysis.metrics.pairs import Comparison, PairMetric, StepMetric
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError

LAYERS = (
    *(f"/patches/patches.{i}/patches.{i}.2/Mul_output_0" for i in range(3)),
    *(f"/blocks/blocks.{i}/Add_1_output_0" for i in range(4)),
)
"""From input to embedding: convolutions (image, channel, y, x), then tokens (image, token, channel)."""
SIDE, BATCH = 112, 32
EPSILON = 1e-10  # of the norm, as in LPIPS's own normalisation


@dataclass(frozen=True)
class PocketDistance(Comparison):
    """Squared differences of unit-norm features, summed over channels and layers, mean over positions.

    No layer or channel is weighted. perceptual: the recogniser's `.onnx` file.
    """

    perceptual: str = "pocket/models/insightface/models/pocket/recognition.onnx"
    what: ClassVar[str] = (
        "perceptual distance with LPIPS's formula, unweighted, over the pocket recogniser's layers "
        "(not LPIPS)"
    )
    direction: ClassVar[Direction] = "lower is better"

    def model(self) -> dict[str, Any]:
        if not located(self.perceptual).is_file():
            raise WeightsError(
                f"perceptual: no file {self.perceptual!r}; name perceptual=FILE, the recognition.onnx of "
                "the pocket models"
            )
        return {"files": digests(self.perceptual), "layers": list(LAYERS)}

    def preflight(self) -> None:
        self.model()
        self.network()

    def network(self) -> Any:
        return load(str(located(self.perceptual)))

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a = features(self.network(), first)
        b = features(self.network(), second)
        return distances(a, b)


@dataclass(frozen=True)
class PerceptualDistancePocket(PairMetric, PocketDistance):
    """Perceptual distance of the final images' pairs, by the pocket recogniser."""

    name: ClassVar[str] = "perceptual_distance_pocket"


@dataclass(frozen=True)
class PerceptualDistancePocketStep(StepMetric, PocketDistance):
    """Perceptual distance of each step's x0 to the run's final image, by the pocket recogniser."""

    name: ClassVar[str] = "perceptual_distance_pocket_step"


@cache
def load(path: str) -> Any:
    """A session that outputs LAYERS. Raises WeightsError for a file that is not the pocket recogniser."""
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own
        raise WeightsError(f"perceptual: {path!r} cannot be read as an .onnx file") from error
    made = {name for node in model.graph.node for name in node.output}
    absent = [name for name in LAYERS if name not in made]
    if absent:
        raise WeightsError(f"perceptual: {path!r} is not the pocket recogniser: no {absent[0]}")
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in LAYERS)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def features(session: Any, images: np.ndarray) -> list[np.ndarray]:
    """The layers, each (image, position, channel), of images (image, row, column, rgb) uint8.

    Images are resized to 112 x 112 pixels.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if pixels.shape[-2:] != (SIDE, SIDE):
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    name = session.get_inputs()[0].name
    found = [
        [flatten_positions(layer) for layer in session.run(LAYERS, {name: part.numpy()})]
        for part in ((pixels - 127.5) / 127.5).split(BATCH)
    ]
    return [np.concatenate(layers) for layers in zip(*found, strict=True)]


def flatten_positions(layer: np.ndarray) -> np.ndarray:
    """A layer (image, channel, y, x) as (image, position, channel); tokens are in that order already."""
    if layer.ndim == 4:
        layer = layer.reshape(*layer.shape[:2], -1).swapaxes(1, 2)
    return layer.astype(np.float32)


def distances(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
    """Distances (image,), from 0, between two lists of layers (image, position, channel).

    second: may have one image, which is compared with all.
    """
    total = np.zeros(len(first[0]), np.float32)
    for a, b in zip(first, second, strict=True):
        a, b = (x / (np.linalg.norm(x, axis=-1, keepdims=True) + EPSILON) for x in (a, b))
        total += ((a - b) ** 2).sum(-1).mean(-1)
    return total
