"""LPIPS (Zhang et al. 2018) through its authors' `lpips` library, where that and torchvision work."""

import importlib.metadata
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from stepscope.analysis.metrics.metric import Direction
from stepscope.analysis.metrics.pairs import Comparison, PairMetric, StepMetric
from stepscope.probes.backbones import pick_device
from stepscope.probes.shortage import memory
from stepscope.probes.weights import WeightsError, first_line

NETWORKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
"""The library's networks, and the models of torchvision whose features each is built on."""
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

    def preflight(self) -> None:
        self.model()
        load(self.lpips, "cpu")

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
    # torchvision of another torch's build: RuntimeError
    except (ImportError, RuntimeError) as error:
        raise WeightsError(
            "lpips needs the packages lpips and torchvision (of your torch's build): pip install lpips "
            f"torchvision, or use dinov2, which needs neither ({first_line(error)})"
        ) from error


@cache
def load(network: str, device: str) -> Any:
    """The library's network, with its authors' weights. Raises WeightsError."""
    build = library().LPIPS
    url, file = weights(network)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library calls torchvision as before 0.13
            built: Any = build(net=network, verbose=False)
    except Exception as error:  # urllib, pickle and torch have classes of their own
        if memory(error):
            raise
        told = f"cannot be read ({first_line(error)}): delete it, and it is downloaded again"
        if not file.exists():
            told = f"was not downloaded ({first_line(error)}): put {url} there"
        raise WeightsError(f"lpips={network!r}: {str(file)!r} {told}") from error
    return built.eval().requires_grad_(False).to(device)


def weights(network: str) -> tuple[str, Path]:
    """Where a network's weights come from, which the library has not itself, and where they are kept."""
    kinds = import_module("torchvision.models").get_model_weights(NETWORKS[network])
    url = kinds["IMAGENET1K_V1"].url
    return url, Path(torch.hub.get_dir(), "checkpoints", Path(url).name)


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
