"""Glasses, a beanie, headphones: what the prompt may add to a head."""

import torch

from stepscope.pocket.world.canvas import Canvas, Frame
from stepscope.pocket.world.hair import dome_radii
from stepscope.pocket.world.palette import colour, hsv
from stepscope.pocket.world.shapes import box, ellipse, parabola
from stepscope.pocket.world.sitter import FACE_TURN, Sitter


def nothing(canvas: Canvas, f: Frame, s: Sitter) -> None:
    """The first accessory is none."""


def glasses(canvas: Canvas, f: Frame, s: Sitter) -> None:
    x = f.x - FACE_TURN * s.yaw
    size = s.eye_rx + 0.075
    lenses = torch.minimum(
        *(
            box(x, f.y, side * (s.eye_x + 0.01), 0.08, size, size * 0.92, size * 0.5)
            for side in (-1, 1)
        )
    )
    canvas.paint(f.cover(lenses), colour(0.85, 0.94, 1.0, f.x), 0.14)
    bridge = parabola(x, f.y, 0.0, 0.03, (s.eye_x - size).clamp(min=0.03) + 0.02, 1.2) - 0.025
    temples = torch.maximum(
        (f.y - 0.03).abs() - 0.025, torch.maximum(s.eye_x + size - x.abs(), f.x.abs() - s.width)
    )
    frame = torch.minimum(torch.minimum(lenses.abs() - 0.028, bridge), temples)
    canvas.paint(f.cover(frame), colour(0.11, 0.10, 0.13, f.x))


def beanie(canvas: Canvas, f: Frame, s: Sitter) -> None:
    wool = hsv(s.trim, 0.55, 0.78) * s.tint
    rx = torch.maximum(dome_radii(s)[0] * 0.97, s.width + 0.06)
    droop = 0.10 * (f.x / rx) ** 2
    knit = torch.maximum(ellipse(f.x, f.y, 0.0, -0.42, rx, 0.86), f.y + 0.46 + droop)
    canvas.paint(f.cover(ellipse(f.x, f.y, 0.0, -1.28, 0.18, 0.17)), wool * 1.18)
    canvas.paint(f.cover(knit), wool * (1.02 + 0.12 * f.x * s.light_x)[:, None])
    band = box(f.x, f.y + droop, 0.0, -0.50, rx * 1.01, 0.13, 0.08)
    canvas.paint(f.cover(band), wool * 0.74)


def headphones(canvas: Canvas, f: Frame, s: Sitter) -> None:
    wide = torch.maximum(dome_radii(s)[0], s.width) + 0.05
    arch = ellipse(f.x, f.y, 0.0, -0.12, wide, dome_radii(s)[1] + 0.10)
    canvas.paint(f.cover(torch.maximum(arch.abs() - 0.06, f.y)), colour(0.17, 0.17, 0.20, f.x))
    shell = hsv(s.trim, 0.60, 0.80) * s.tint
    for side in (-1, 1):
        x = side * wide
        canvas.paint(f.cover(box(f.x, f.y, x, 0.10, 0.15, 0.26, 0.12)), shell)
        canvas.paint(f.cover(box(f.x, f.y, x - side * 0.03, 0.10, 0.07, 0.17, 0.06)), shell * 0.55)


# In the order of ATTRIBUTES["accessory"].
ACCESSORIES = (nothing, glasses, beanie, headphones)
