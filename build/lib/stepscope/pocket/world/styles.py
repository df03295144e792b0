"""Photo, pencil sketch and poster: what becomes of the finished picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from stepscope.pocket.world.palette import colour, luminance
from stepscope.pocket.world.shapes import root, smoothstep


def outlines(image: Tensor) -> Tensor:
    """The strength of edges (n, 1, h, w), by Sobel's operator over the three channels."""
    kernel = image.new_tensor(((-1.0, 0, 1), (-2, 0, 2), (-1, 0, 1))) / 4
    weights = torch.stack([kernel, kernel.T])[:, None].repeat(3, 1, 1, 1)
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return root(F.conv2d(padded, weights, groups=3).square().sum(1, keepdim=True))


def photo(image: Tensor) -> Tensor:
    """A little darker towards the corners."""
    edge = torch.linspace(-1, 1, image.shape[-1], device=image.device) ** 2
    return image * (1 - 0.07 * (edge[:, None] + edge))


def sketch(image: Tensor) -> Tensor:
    """Graphite lines and soft tone on warm paper, with a breath of colour."""
    tone = luminance(image)
    line = (outlines(image) * 1.5 - 0.10).clamp(0, 0.9)
    paper = colour(0.98, 0.96, 0.92, image)
    shaded = paper * (1 - 0.46 * (1 - tone)) + 0.45 * (image - tone)
    return shaded * (1 - line) + 0.20 * line


def poster(image: Tensor) -> Tensor:
    """Four flat tones, strong colours, ink around them."""
    tone = luminance(image)
    steps = tone * 4
    flat = (steps.floor() + smoothstep(0.3, 0.7, steps - steps.floor())) / 4
    strong = (image - tone) * 1.5 + flat * 0.94 + 0.05
    ink = (outlines(image) * 1.5 - 0.28).clamp(0, 0.9)
    return strong * (1 - ink) + colour(0.07, 0.05, 0.14, image) * ink


# In the order of ATTRIBUTES["style"].
STYLES = (photo, sketch, poster)
