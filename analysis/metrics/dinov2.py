"""Likeness by DINOv2 (Oquab et al. 2023) through transformers: cosine of two images' class tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers import Dinov2Model

from stepscope.analysis.metrics.metric import Direction, digests
from stepscope.analysis.metrics.pairs import Comparison, PairMetric, StepMetric
from stepscope.probes.backbones import pick_device
from stepscope.probes.weights import explained, folder

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as DINOv2 was trained
BATCH = 16
FILES = ["config.json", "*.safetensors"]


@dataclass(frozen=True)
class Dinov2Likeness(Comparison):
    """Cosine of class tokens. dinov2: hub id or folder; dinov2_size: pixels of each side it sees.

    The whole image is brought to that square; DINOv2's own processor would cut its margins off.
    """

    dinov2: str = "facebook/dinov2-base"
    dinov2_size: int = 224
    device: str = "auto"
    what: ClassVar[str] = "cosine of DINOv2's class tokens"
    direction: ClassVar[Direction] = "higher is better"

    def model(self) -> dict[str, Any]:
        return {"files": digests(folder(self.dinov2, "dinov2", FILES)), "size": self.dinov2_size}

    def preflight(self) -> None:
        load(self.dinov2, "cpu")

    def network(self) -> Any:
        return load(self.dinov2, pick_device(self.device))

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = (embedded(self.network(), x, self.dinov2_size) for x in (first, second))
        return functional.cosine_similarity(a, b).cpu().numpy()


@dataclass(frozen=True)
class Dinov2(PairMetric, Dinov2Likeness):
    """DINOv2 likeness of the final images' pairs."""

    name: ClassVar[str] = "dinov2"


@dataclass(frozen=True)
class Dinov2Step(StepMetric, Dinov2Likeness):
    """DINOv2 likeness of each step's x0 to the run's final image."""

    name: ClassVar[str] = "dinov2_step"


@cache
def load(path: str, device: str) -> Any:
    """The network. Raises WeightsError."""
    with explained(path, "dinov2"):
        network: Any = Dinov2Model.from_pretrained(folder(path, "dinov2", FILES))
    return network.eval().requires_grad_(False).to(device)


@torch.inference_mode()
def embedded(network: Any, images: np.ndarray, size: int) -> torch.Tensor:
    """Class tokens (n, width) after the last norm, of images (n, row, column, rgb) uint8."""
    found = [
        network(pixel_values=part.to(network.device)).pooler_output
        for part in prepared(images, size, (MEAN, DEVIATION))
    ]
    return torch.cat(found)


def prepared(
    images: np.ndarray, size: int, scale: tuple[Sequence[float], Sequence[float]]
) -> Iterator[torch.Tensor]:
    """Pixels (part, rgb, size, size) of images (n, row, column, rgb) uint8, in parts.

    The whole image is brought to the square. scale: mean and deviation of each colour, in [0, 1].
    """
    mean, deviation = (torch.tensor(v)[:, None, None] for v in scale)
    for part in torch.from_numpy(np.ascontiguousarray(images)).split(BATCH):
        pixels = part.permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-2:] != (size, size):
            pixels = functional.interpolate(
                pixels, (size, size), mode="bicubic", antialias=True
            ).clamp(0, 1)
        yield (pixels - mean) / deviation
