"""Shoulders, neck and five kinds of clothing, upright below a head that may be tilted."""

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Canvas, Frame
from stepscope.pocket.world.palette import colour, hsv
from stepscope.pocket.world.shapes import box, ellipse, segment, smoothstep
from stepscope.pocket.world.sitter import Sitter


def torso(f: Frame) -> Tensor:
    """The signed distance of shoulders and chest."""
    return torch.minimum(
        ellipse(f.x, f.y, 0.0, 2.62, 1.58, 1.24), box(f.x, f.y, 0.0, 3.4, 1.5, 1.1, 0.3)
    )


def neck_width(s: Sitter) -> Tensor:
    return 0.12 + 0.25 * s.width


def shaded(s: Sitter, f: Frame, cloth: Tensor) -> Tensor:
    """Cloth under the sitter's light."""
    light = 1.02 + 0.14 * f.x * s.light_x - 0.08 * (f.y - 1.6)
    return cloth * s.tint * light.clamp(0.6, 1.2)[:, None]


def paint_torso(canvas: Canvas, f: Frame, s: Sitter, *, hood: Tensor, dark: Tensor) -> None:
    """The body in the prompt's colour, and a hood behind the neck where `hood` is 1."""
    cloth = shaded(s, f, torch.lerp(s.cloth, s.cloth * 0.62, dark[:, None]))
    canvas.paint(f.cover(ellipse(f.x, f.y, 0.0, 1.18, 0.98, 0.52)), cloth * 0.72, hood)
    canvas.paint(f.cover(torso(f)), cloth)


def paint_neck(canvas: Canvas, f: Frame, s: Sitter) -> None:
    half = neck_width(s)
    neck = torch.minimum(
        box(f.x, f.y, 0.0, 1.05, half, 0.45, 0.1),
        ellipse(f.x, f.y, 0.0, 1.42, half + 0.10, 0.20),
    )
    shadow = 0.72 + 0.16 * smoothstep(0.0, 0.35, f.y - s.chin)
    canvas.paint(f.cover(neck), s.skin * s.tint * shadow[:, None])


def suit(canvas: Canvas, f: Frame, s: Sitter) -> None:
    cloth, body = shaded(s, f, s.cloth * 0.62), f.cover(torso(f))
    opening = (f.x.abs() - 0.52 + 0.48 * (f.y - 1.40)) * 0.9
    canvas.paint(
        f.cover(torch.maximum(opening, 1.36 - f.y)) * body,
        shaded(s, f, colour(0.96, 0.96, 0.97, f.x)),
    )
    silk = hsv(s.trim, 0.65, 0.70) * s.tint
    knot = box(f.x, f.y, 0.0, 1.60, 0.11, 0.10, 0.05)
    blade = torch.maximum(f.x.abs() - 0.06 - 0.10 * (f.y - 1.6).clamp(0, 1), 1.62 - f.y)
    canvas.paint(f.cover(torch.minimum(knot, blade)), silk)
    for side in (-1, 1):
        tip = segment(f.x, f.y, side * 0.36, 1.36, side * 0.15, 1.62) - 0.075
        canvas.paint(f.cover(tip), colour(1, 1, 1, f.x) * s.tint)
    lapel = torch.maximum(opening.abs() - 0.06, 1.36 - f.y)
    canvas.paint(f.cover(lapel) * body, cloth * 0.62)


def t_shirt(canvas: Canvas, f: Frame, s: Sitter) -> None:
    half = neck_width(s)
    rim = ellipse(f.x, f.y, 0.0, 1.40, half + 0.14, 0.26).abs() - 0.045
    canvas.paint(f.cover(torch.maximum(rim, 1.38 - f.y)), shaded(s, f, s.cloth * 0.78))


def hoodie(canvas: Canvas, f: Frame, s: Sitter) -> None:
    cloth = shaded(s, f, s.cloth)
    rim = torch.maximum(ellipse(f.x, f.y, 0.0, 1.36, 0.72, 0.38).abs() - 0.12, 1.28 - f.y)
    canvas.paint(f.cover(rim - 0.03), cloth * 0.60)
    canvas.paint(f.cover(rim), cloth * 0.88)
    for side in (-1, 1):
        string = segment(f.x, f.y, side * 0.24, 1.72, side * 0.26, 2.20) - 0.045
        canvas.paint(f.cover(string), colour(0.97, 0.96, 0.92, f.x) * s.tint)


def sweater(canvas: Canvas, f: Frame, s: Sitter) -> None:
    cloth, half = shaded(s, f, s.cloth), neck_width(s)
    collar = box(f.x, f.y, 0.0, 1.36, half + 0.12, 0.22, 0.10)
    canvas.paint(f.cover(collar - 0.03), cloth * 0.62)
    canvas.paint(f.cover(collar), cloth * 1.06)
    band = torch.maximum((f.y - 2.0).abs() - 0.13, torso(f))
    canvas.paint(f.cover(band), 1 - (1 - cloth) * 0.55)


def jacket(canvas: Canvas, f: Frame, s: Sitter) -> None:
    cloth, body, half = shaded(s, f, s.cloth * 0.62), f.cover(torso(f)), neck_width(s)
    middle = f.x.abs() - 0.40 - 0.06 * (f.y - 1.5)
    skin = f.cover(ellipse(f.x, f.y, 0.0, 1.40, half + 0.10, 0.22))
    shirt = f.cover(torch.maximum(middle, 1.36 - f.y)) * body * (1 - skin)
    canvas.paint(shirt, shaded(s, f, colour(0.95, 0.94, 0.91, f.x)))
    for side in (-1, 1):
        collar = segment(f.x, f.y, side * 0.42, 1.36, side * 0.58, 1.78) - 0.15
        canvas.paint(f.cover(collar - 0.03), cloth * 0.55)
        canvas.paint(f.cover(collar), cloth * 1.25)
        for row in (2.05, 2.4):
            canvas.paint(
                f.cover(ellipse(f.x, f.y, side * 0.62, row, 0.06, 0.06)),
                colour(0.90, 0.78, 0.45, f.x),
            )


# In the order of ATTRIBUTES["clothing"].
CLOTHING = (suit, t_shirt, hoodie, sweater, jacket)
