"""Six backdrops: broad clean shapes, shifted a little by nuisance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Canvas, Frame, Rows
from stepscope.pocket.world.palette import colour, hsv
from stepscope.pocket.world.shapes import box, ellipse, root, segment

# Backdrops are out of focus: edges this many pixels wide.
SOFT = 2.5


@dataclass
class Backdrop(Rows):
    """How a scene is shifted and tinted: x, y and hue, (n, 1, 1)."""

    x: Tensor
    y: Tensor
    hue: Tensor


def gradient(top: Tensor, bottom: Tensor, t: Tensor) -> Tensor:
    """The colours from top to bottom at t in [0, 1], (n, h, w)."""
    return top + t.clamp(0, 1)[:, None] * (bottom - top)


def studio(canvas: Canvas, f: Frame, drop: Backdrop) -> None:
    light = hsv(drop.hue, 0.30, 0.86)
    radius = root((f.x - 0.25 * drop.x) ** 2 + (f.y + 0.3) ** 2) / 1.6
    canvas.image = gradient(light, light * 0.66, radius)


def beach(canvas: Canvas, f: Frame, drop: Backdrop) -> None:
    canvas.image = gradient(
        colour(0.36, 0.68, 0.95, f.x), colour(0.88, 0.95, 0.98, f.x), (f.y + 1) * 1.1
    )
    sun = ellipse(f.x, f.y, drop.x - 0.62, -0.68 + drop.y, 0.17, 0.17)
    canvas.paint(f.cover(sun, SOFT), colour(1.0, 0.93, 0.55, f.x))
    sea = 0.02 + drop.y
    canvas.paint(f.cover(sea - f.y, SOFT), colour(0.13, 0.56, 0.72, f.x))
    shore = sea + 0.26 + 0.04 * torch.sin(4 * f.x + 5 * drop.x)
    canvas.paint(f.cover(shore - f.y, SOFT), colour(0.95, 0.98, 0.98, f.x))
    canvas.paint(f.cover(shore + 0.08 - f.y, SOFT), colour(0.95, 0.85, 0.62, f.x))
    x = 0.72 - 0.4 * drop.x
    canvas.paint(
        f.cover(segment(f.x, f.y, x, -0.4, x + 0.03, 0.7) - 0.02, SOFT),
        colour(0.97, 0.96, 0.92, f.x),
    )
    shade = torch.maximum(ellipse(f.x, f.y, x, -0.28, 0.42, 0.34), f.y + 0.28)
    canvas.paint(f.cover(shade, SOFT), colour(0.91, 0.31, 0.27, f.x))
    stripe = torch.maximum(shade, ellipse(f.x, f.y, x, -0.28, 0.15, 0.36))
    canvas.paint(f.cover(stripe, SOFT), colour(0.99, 0.95, 0.88, f.x))


def office(canvas: Canvas, f: Frame, drop: Backdrop) -> None:
    canvas.image = gradient(
        colour(0.90, 0.87, 0.82, f.x), colour(0.77, 0.73, 0.69, f.x), (f.y + 1) / 2
    )
    x, y = -0.62 + 0.4 * drop.x, -0.40 + drop.y
    canvas.paint(
        f.cover(box(f.x, f.y, x, y, 0.46, 0.46, 0.03), SOFT), colour(0.98, 0.97, 0.95, f.x)
    )
    pane = gradient(colour(0.52, 0.75, 0.94, f.x), colour(0.84, 0.93, 0.98, f.x), f.y + 1)
    for side in (-0.205, 0.205):
        canvas.paint(f.cover(box(f.x, f.y, x + side, y, 0.18, 0.40, 0.02), SOFT), pane)
    x = 0.68 + 0.4 * drop.x
    for row in range(3):
        shelf = -0.50 + 0.46 * row + drop.y
        for k in range(3):
            tall = (0.15, 0.12, 0.17)[(k + row) % 3]
            cover = hsv(0.3 * drop.hue + 0.37 * k + 0.21 * row, 0.50, 0.72)
            book = box(f.x, f.y, x - 0.20 + 0.19 * k, shelf - tall, 0.08, tall, 0.02)
            canvas.paint(f.cover(book, SOFT), cover)
        canvas.paint(
            f.cover(box(f.x, f.y, x, shelf + 0.03, 0.44, 0.03), SOFT), colour(0.55, 0.38, 0.25, f.x)
        )


def forest(canvas: Canvas, f: Frame, drop: Backdrop) -> None:
    canvas.image = gradient(
        colour(0.80, 0.92, 0.66, f.x), colour(0.36, 0.56, 0.30, f.x), (f.y + 1) / 2
    )
    for k, place in enumerate((-0.95, -0.45, 0.55, 1.0)):
        x = place + 0.25 * drop.x
        bark = colour(0.42, 0.29, 0.19, f.x) * (1.15, 0.85)[k % 2]
        canvas.paint(f.cover(segment(f.x, f.y, x, -1.2, x, 1.2) - (0.09, 0.06)[k % 2], SOFT), bark)
    for k, (px, py, r) in enumerate(
        (
            (-0.9, -0.8, 0.42),
            (-0.3, -1.0, 0.38),
            (0.4, -0.95, 0.42),
            (1.0, -0.75, 0.40),
            (0.1, -1.1, 0.35),
        )
    ):
        crown = ellipse(f.x, f.y, px + 0.3 * drop.x, py + drop.y, r, 0.75 * r)
        leaf = colour(0.24, 0.52, 0.22, f.x) * (0.9, 1.15)[k % 2]
        canvas.paint(f.cover(crown, SOFT), leaf)
    hill = 0.50 + drop.y + 0.05 * torch.sin(5 * f.x + 2)
    canvas.paint(f.cover(hill - f.y, SOFT), colour(0.22, 0.42, 0.18, f.x))


def night(canvas: Canvas, f: Frame, drop: Backdrop) -> None:
    canvas.image = gradient(
        colour(0.06, 0.07, 0.20, f.x), colour(0.28, 0.16, 0.38, f.x), (f.y + 1) / 2
    )
    moon = ellipse(f.x, f.y, 0.62 - 0.5 * drop.x, -0.72 + drop.y, 0.13, 0.13)
    canvas.paint(f.cover(moon, SOFT), colour(0.98, 0.95, 0.78, f.x))
    for k, (px, top) in enumerate(((-0.92, -0.45), (-0.42, -0.15), (0.45, -0.30), (0.95, -0.05))):
        x = px + 0.2 * drop.x
        wall = colour(0.10, 0.10, 0.22, f.x) * (1.0, 1.4)[k % 2]
        canvas.paint(f.cover(box(f.x, f.y, x, top + 1.2, 0.23, 1.2), SOFT), wall)
        for row in range(3):
            for side in (-0.10, 0.10):
                pane = box(f.x, f.y, x + side, top + 0.16 + 0.26 * row, 0.055, 0.075, 0.02)
                canvas.paint(
                    f.cover(pane, SOFT),
                    colour(0.98, 0.80, 0.40, f.x),
                    0.9 if (k + row) % 2 else 0.35,
                )
    for px, py, turn in (
        (-0.75, 0.55, 0.0),
        (0.75, 0.45, 0.12),
        (-0.2, 0.72, 0.9),
        (0.3, 0.85, 0.55),
    ):
        lamp = ellipse(f.x, f.y, px + 0.4 * drop.x, py + drop.y, 0.13, 0.13)
        canvas.paint(f.cover(lamp, 4), hsv(0.2 * drop.hue + turn, 0.55, 1.0), 0.6)


def mountains(canvas: Canvas, f: Frame, drop: Backdrop) -> None:
    canvas.image = gradient(
        colour(0.47, 0.65, 0.90, f.x), colour(0.95, 0.93, 0.94, f.x), (f.y + 1) * 0.85
    )
    for k, (px, top, wide) in enumerate(
        ((-0.75, -0.66, 0.75), (0.80, -0.80, 0.80), (0.0, -0.40, 0.9))
    ):
        x, peak = px + 0.4 * drop.x, top + drop.y
        slope = (f.x - x).abs() / wide - (f.y - peak)
        rock = colour(0.43, 0.48, 0.62, f.x) * (1 - 0.14 * k)
        canvas.paint(f.cover(slope * 0.7, SOFT), rock)
        jag = peak + 0.26 + 0.05 * torch.cos(14 * (f.x - x))
        canvas.paint(
            f.cover(torch.maximum(slope, f.y - jag) * 0.7, SOFT), colour(0.97, 0.98, 1.0, f.x)
        )
    snow = 0.48 + drop.y + 0.06 * torch.sin(3 * f.x + 4 * drop.x)
    canvas.paint(f.cover(snow - f.y, SOFT), colour(0.93, 0.95, 0.98, f.x))


# In the order of ATTRIBUTES["scene"].
SCENES = (studio, beach, office, forest, night, mountains)
