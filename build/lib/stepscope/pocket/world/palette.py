"""Colours: ramps of skin, hair and iris, the cloth colours of the prompts, and mixing."""

import torch
from torch import Tensor

SKIN = (
    (0.99, 0.87, 0.77),
    (0.95, 0.75, 0.60),
    (0.83, 0.60, 0.44),
    (0.62, 0.41, 0.28),
    (0.42, 0.26, 0.18),
)
HAIR = (
    (0.10, 0.08, 0.10),
    (0.30, 0.18, 0.12),
    (0.56, 0.22, 0.10),
    (0.85, 0.46, 0.16),
    (0.95, 0.80, 0.45),
    (0.85, 0.85, 0.88),
)
IRIS = (
    (0.24, 0.13, 0.07),
    (0.52, 0.34, 0.10),
    (0.20, 0.52, 0.27),
    (0.16, 0.48, 0.80),
    (0.55, 0.68, 0.80),
)
# In the order of ATTRIBUTES["colour"].
CLOTH = (
    (0.80, 0.17, 0.17),
    (0.17, 0.36, 0.76),
    (0.17, 0.53, 0.31),
    (0.95, 0.76, 0.20),
    (0.93, 0.92, 0.89),
    (0.15, 0.15, 0.18),
    (0.50, 0.27, 0.66),
)


def colour(r: float, g: float, b: float, like: Tensor) -> Tensor:
    """One colour for all, (1, 3, 1, 1)."""
    return like.new_tensor((r, g, b))[None, :, None, None]


def ramp(stops: tuple[tuple[float, float, float], ...], t: Tensor) -> Tensor:
    """The colour at t in [0, 1], (n, 1, 1), along the stops: (n, 3, 1, 1)."""
    table = t.new_tensor(stops)
    place = t.flatten().clamp(0, 1) * (len(stops) - 1)
    low = place.long().clamp(max=len(stops) - 2)
    mixed = torch.lerp(table[low], table[low + 1], (place - low)[:, None])
    return mixed[:, :, None, None]


def hsv(hue: Tensor, saturation: float, value: float) -> Tensor:
    """Hues (n, 1, 1), in turns, as colours (n, 3, 1, 1)."""
    k = torch.stack([(hue.flatten() * 6 + shift) % 6 for shift in (5.0, 3.0, 1.0)], 1)
    dip = torch.minimum(k, 4 - k).clamp(0, 1)
    return (value - value * saturation * dip)[:, :, None, None]


def luminance(image: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, 1, h, w), the weights of ITU-R BT.601."""
    weights = image.new_tensor((0.299, 0.587, 0.114))[:, None, None]
    return (image * weights).sum(1, keepdim=True)
