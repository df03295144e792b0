"""LPIPS (Zhang et al. 2018) through its authors' `lpips` library, where that and torchvision work."""

import importlib.metadata
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
import torch

from analysis.metrics.metric import Direction
from analysis.metrics.pairs import Comparison, PairMetric, StepMetric
from probes.backbones import pick_device
from probes.weights import WeightsError

NETWORKS = ("alex", "vgg", "squeeze")
BATCH = 16


@dataclass(frozen=True)
class LpipsDistance(Comparison):
    """LPIPS with one of its three networks: `alex` (its authors' choice), `vgg`, `squeeze`."""

    lpips: str = "alex"
    device: str = "auto"
    what: ClassVar[str] = "LPIPS distance"
    direction: ClassVar[Direction] = "lower is better"

    def model(self) -> dict[str, Any]:
        if self.lpips not in NETWORKS:
            raise WeightsError(f"lpips={self.lpips!r}; known: {', '.join(NETWORKS)}")
        library()
        versions = {name: importlib.metadata.version(name) for name in ("lpips", "torchvision")}
        return {"network": self.lpips, **versions}

    def network(self) -> Any:
        return load(self.lpips, pick_device(self.device))

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return distances(self.network(), first, second)


@dataclass(frozen=True)
class Lpips(PairMetric, LpipsDistance):
    """LPIPS of the final images' pairs."""

    name: ClassVar[str] = "lpips"


@dataclass(frozen=True)
class LpipsStep(StepMetric, LpipsDistance):
    """LPIPS of each step's x0 to the run's final image."""

    name: ClassVar[str] = "lpips_step"


def library() -> Any:
    """The `lpips` library, imported here because it is optional. Raises WeightsError."""
    try:
        return import_module("lpips")
    except (
        ImportError,
        RuntimeError,
    ) as error:  # torchvision of another torch's build: RuntimeError
        raise WeightsError(
            "metrics: lpips needs the packages lpips and torchvision (of your torch's build): "
            "pip install lpips torchvision, or leave it out; dinov2 needs neither "
            f"({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from error


@cache
def load(network: str, device: str) -> Any:
    """The library's network, with its authors' weights. Raises WeightsError."""
    built = library().LPIPS
    try:
        return built(net=network, verbose=False).eval().requires_grad_(False).to(device)
    except OSError as error:
        raise WeightsError(
            f"lpips={network!r}: torchvision's weights are not on this machine and were not downloaded"
        ) from error


@torch.inference_mode()
def distances(network: Any, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) of images (n, row, column, rgb) uint8 and as many others, or one for all."""
    device = next(network.parameters()).device
    a, b = (
        torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).to(device) / 127.5 - 1
        for x in (first, second)
    )
    pairs = zip(a.split(BATCH), b.expand(len(a), -1, -1, -1).split(BATCH), strict=True)
    return torch.cat([network(x, y).flatten() for x, y in pairs]).cpu().numpy()
