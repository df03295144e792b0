"""Distance of style by Gram matrices of VGG's features (Gatys et al. 2016, arXiv 1508.06576, equation 5).

E_l = sum_ij (G_ij - A_ij)^2 / (4 N^2 M^2) of a layer with N channels and M positions, G = F F^T of the one
image's features and A of the other's; the distance is the mean of E_l over conv1_1 to conv5_1, rectified.
The weights are torchvision's and as they are: Gatys et al. had rescaled theirs, and other weights of the
layers come of it, so that distances compare with each other, and not with theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch.nn import functional

from stepscope.analysis.metrics.dinov2 import DEVIATION, MEAN, prepared
from stepscope.analysis.metrics.metric import Direction, digests
from stepscope.analysis.metrics.pairs import Comparison
from stepscope.analysis.metrics.to_reference import (
    EditedToReference,
    StepToReference,
    ToReference,
)
from stepscope.hooks.errors import nearest
from stepscope.probes.backbones import pick_device
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError, explained, first_line

PUBLISHED = {
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""Where torchvision gets the weights of each network from; LPIPS with `vgg` keeps VGG-16's at one place."""
CONVOLUTIONS = {
    "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
"""Of torchvision's `features`; a rectifier follows each, and a pooling too where the next is 3 further."""
LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
SUFFIXES = (".pth", ".pt", ".safetensors")


class Convolution(NamedTuple):
    """weight: (out, in, 3, 3). pooled: 2 x 2 before it. first: of the block of its resolution."""

    weight: torch.Tensor
    bias: torch.Tensor
    pooled: bool
    first: bool


@dataclass(frozen=True)
class GramDistance(Comparison):
    """Gram distance. gram: `vgg19`, as published, `vgg16`, or a file of torchvision's weights of either.

    gram_size: pixels of each side that the network sees; the whole image is brought to that square.
    """

    gram: str = "vgg19"
    gram_size: int = 224
    device: str = "auto"
    what: ClassVar[str] = "distance of Gram matrices of VGG's features"
    direction: ClassVar[Direction] = "lower is better"

    def model(self) -> dict[str, Any]:
        files = digests(weights(self.gram))
        return {"files": files, "layers": list(LAYERS), "size": self.gram_size}

    def preflight(self) -> None:
        load(str(weights(self.gram)), "cpu")

    def network(self) -> tuple[Convolution, ...]:
        return load(str(weights(self.gram)), pick_device(self.device))

    def compare(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        a, b = (grams(self.network(), images, self.gram_size) for images in (first, second))
        return distances(a, b).cpu().numpy()


@dataclass(frozen=True)
class StyleGram(ToReference, GramDistance):
    """Gram distance of the final image to the reference image."""

    name: ClassVar[str] = "style_gram"


@dataclass(frozen=True)
class StyleGramStep(StepToReference, GramDistance):
    """Gram distance of each step's x0 to the reference image."""

    name: ClassVar[str] = "style_gram_step"


@dataclass(frozen=True)
class EditedStyleGram(EditedToReference, GramDistance):
    """Gram distance of an edited sample's final image to the reference image."""

    name: ClassVar[str] = "edited_style_gram"


def weights(given: str) -> Path:
    """The file of weights, downloaded where it is torchvision's and not here. Raises WeightsError."""
    if Path(given).suffix in SUFFIXES:
        if not located(given).is_file():
            raise WeightsError(f"gram: no file {given!r}")
        return located(given)
    if given not in PUBLISHED:
        raise WeightsError(
            f"gram={given!r}: {nearest(given, PUBLISHED)}; or a file of such weights, {', '.join(SUFFIXES)}"
        )
    url = PUBLISHED[given]
    file = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(file), Path(url).stem.partition("-")[2], progress=False
            )
        except Exception as error:  # urllib's, and RuntimeError for another hash
            raise WeightsError(
                f"gram={given!r}: {str(file)!r} was not downloaded ({first_line(error)}): put {url} there, "
                "or name a file with those weights, gram=FILE"
            ) from error
    return file


@cache
def load(path: str, device: str) -> tuple[Convolution, ...]:
    """The convolutions to conv5_1. Raises WeightsError for a file that is neither network's."""
    with explained(path, "gram"):
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        return tuple(
            one._replace(weight=one.weight.float().to(device), bias=one.bias.float().to(device))
            for one in convolutions(state)
        )


def convolutions(state: dict[str, torch.Tensor]) -> list[Convolution]:
    """The convolutions, to conv5_1, of the weights of a network. Raises ValueError for another's."""
    names = [name for name in state if name.startswith("features.") and name.endswith(".weight")]
    places = tuple(sorted(int(name.split(".")[1]) for name in names))
    if places not in CONVOLUTIONS.values():
        raise ValueError("it is neither torchvision's vgg19 nor its vgg16: name one of those")
    found = []
    for before, place in zip((-3, *places), places, strict=False):
        weight, bias = (state[f"features.{place}.{word}"] for word in ("weight", "bias"))
        pooled = place - before == 3
        found.append(Convolution(weight, bias, pooled and place > 0, pooled))
    last = [i for i, one in enumerate(found) if one.first][len(LAYERS) - 1]
    return found[: last + 1]


@torch.inference_mode()
def grams(
    network: Sequence[Convolution], images: np.ndarray, size: int
) -> list[Float[torch.Tensor, "image _ _"]]:
    """Gram matrices of each layer of LAYERS, of images (image, row, column, rgb) uint8."""
    found: list[list[torch.Tensor]] = [[] for _ in LAYERS]
    for pixels in prepared(images, size, (MEAN, DEVIATION)):
        features = layers(network, pixels.to(network[0].weight.device))
        for kept, layer in zip(found, features, strict=True):
            kept.append(gram(layer))
    return [torch.cat(each) for each in found]


def layers(network: Sequence[Convolution], pixels: torch.Tensor) -> list[torch.Tensor]:
    """Rectified features (image, channel, y, x) of the first convolution of each resolution."""
    found, x = [], pixels
    for one in network:
        if one.pooled:
            x = functional.max_pool2d(x, 2)
        x = functional.conv2d(x, one.weight, one.bias, padding=1).relu()
        if one.first:
            found.append(x)
    return found


def gram(
    features: Float[torch.Tensor, "image channel y x"],
) -> Float[torch.Tensor, "image channel channel"]:
    """F F^T / M: products of channels, mean over positions; the order of positions does not matter."""
    f = features.flatten(2)
    return f @ f.mT / f.shape[-1]


def distances(
    first: Sequence[Float[torch.Tensor, "image _ _"]],
    second: Sequence[Float[torch.Tensor, "other _ _"]],
) -> Float[torch.Tensor, "image"]:
    """Mean over layers of E_l, from 0; `second` has as many images, or one that is compared with all.

    Gram matrices are over M already, which is the M^2 of E_l where both images have one size.
    """
    each = [
        ((a - b) ** 2).sum((1, 2)) / (4 * a.shape[-1] ** 2)
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(each).mean(0)
