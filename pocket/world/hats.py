"""Hats: an object that a prompt can name ("with a hat") and whose design it cannot. All continuous."""

import math

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Canvas, Frame
from stepscope.pocket.world.hair import dome_radii
from stepscope.pocket.world.palette import hsv
from stepscope.pocket.world.shapes import box, ellipse
from stepscope.pocket.world.sitter import Sitter

HAT: tuple[str, ...] = (
    "crown_height",
    "crown_taper",
    "brim",
    "hue",
    "second_hue",
    "lightness",
    "band",
    "stripes",
    "stripe_angle",
    "badge",
)
CIRCULAR: tuple[str, ...] = ("hue", "second_hue", "stripe_angle")
"""Numbers whose ends meet: 0 and 1 look the same."""


def sample_hats(n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """n designs, (n, hat) uniform in [0, 1]; drawn on the generator's device."""
    return torch.rand(n, len(HAT), generator=generator, device=generator.device).to(device)


def paint_hat(canvas: Canvas, f: Frame, s: Sitter, hat: Tensor) -> None:
    """A hat of each design (n, hat) on each head: crown, stripes, band, badge, brim."""
    h = {name: hat[:, i, None, None] for i, name in enumerate(HAT)}
    width = torch.maximum(dome_radii(s)[0] * 0.93, s.width + 0.02)
    foot = -0.50
    height = 0.30 + 0.62 * h["crown_height"]
    up = ((foot - f.y) / height).clamp(0, 1)
    half = width * (1 - (0.05 + 0.60 * h["crown_taper"]) * up)
    crown = torch.maximum(f.x.abs() - half, (f.y - foot + height / 2).abs() - height / 2)
    value = 0.45 + 0.50 * h["lightness"]
    felt = hsv(h["hue"], 0.68, 1.0) * value[:, None] * s.tint
    trim = hsv(h["second_hue"], 0.75, 0.95) * s.tint
    shade = (1 + 0.16 * f.x * s.light_x)[:, None]
    canvas.paint(f.cover(crown), felt * shade)
    angle = math.pi * h["stripe_angle"]
    along = angle.cos() * f.x + angle.sin() * (f.y - foot)
    striped = (torch.cos(along * 2 * math.pi / 0.34) * 2.2).clamp(-0.5, 0.5) + 0.5
    shown = ((h["stripes"] - 0.25) * 2).clamp(0, 1)
    canvas.paint(f.cover(crown) * striped * shown, trim * 0.9)
    tall = 0.05 + 0.16 * h["band"]
    band = torch.maximum(f.x.abs() - half - 0.01, (f.y - foot + tall).abs() - tall)
    canvas.paint(f.cover(band), trim * 0.62)
    size = 0.05 + 0.17 * h["badge"]
    middle = foot - 0.5 * height
    badge = ellipse(f.x, f.y, 0.0, middle, size, size)
    canvas.paint(f.cover(badge), trim)
    canvas.paint(f.cover(badge.abs() - 0.02), felt * 0.45)
    wide = width * (1.05 + 0.50 * h["brim"])
    droop = 0.06 * (f.x / wide) ** 2
    brim = box(f.x, f.y - droop, 0.0, foot + 0.02, wide, 0.075, 0.07)
    canvas.paint(f.cover(brim), felt * 0.72)
