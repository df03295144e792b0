"""Eyes, brows, nose and mouth, drawn over the skull in the frame that turns with it."""

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Canvas, Frame
from stepscope.pocket.world.face import Skin
from stepscope.pocket.world.palette import colour
from stepscope.pocket.world.shapes import ellipse, parabola, segment
from stepscope.pocket.world.sitter import FACE_TURN, NOSE_TURN, Sitter


def paint_nose(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    f = skin.features
    x, y = f.x - (NOSE_TURN - FACE_TURN) * s.yaw, f.y
    shadow_side = -torch.sign(s.light_x + 1e-6)
    ridge = segment(x, y, shadow_side * 0.05, -0.02, shadow_side * 0.75 * s.nose_width, s.nose_y)
    canvas.paint(f.cover(ridge - 0.03, 3), skin.lit * 0.72, 0.6)
    wings = ellipse(x, y, 0.0, s.nose_y + 0.02, s.nose_width, 0.105)
    canvas.paint(f.cover(wings - 0.03), skin.lit * 0.66)
    canvas.paint(f.cover(wings), skin.lit * colour(1.06, 0.93, 0.89, f.x))
    under = parabola(x, y, 0.0, s.nose_y + 0.125, s.nose_width * 0.95, -0.6) - 0.032
    canvas.paint(f.cover(under), skin.lit * 0.42, 0.9)
    for side in (-1, 1):
        hole = ellipse(
            x, y, side * 0.55 * s.nose_width, s.nose_y + 0.085, 0.030 + 0.14 * s.nose_width, 0.035
        )
        canvas.paint(f.cover(hole), skin.lit * 0.28)
    shine = ((x + 0.3 * shadow_side * s.nose_width) / 0.06) ** 2 + (
        (y - s.nose_y + 0.04) / 0.06
    ) ** 2
    canvas.paint(torch.exp(-shine), colour(1, 1, 1, f.x), 0.28)


def paint_mouth(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    f = skin.features
    lip = (s.skin * colour(0.82, 0.36, 0.38, f.x) + colour(0.10, 0, 0.02, f.x)) * s.tint
    _closed_mouth(canvas, f, s, lip)
    rx, ry = s.mouth_width * 0.72, 0.14
    outer = ellipse(f.x, f.y, 0.0, s.mouth_y, rx + s.lips * 0.7, ry + s.lips * 0.7)
    canvas.paint(f.cover(outer), lip, s.surprised)
    canvas.paint(
        f.cover(ellipse(f.x, f.y, 0.0, s.mouth_y, rx, ry)),
        colour(0.30, 0.08, 0.09, f.x),
        s.surprised,
    )
    tongue = ellipse(f.x, f.y, 0.0, s.mouth_y + 0.08, rx * 0.65, 0.055)
    canvas.paint(f.cover(tongue), colour(0.84, 0.42, 0.42, f.x), s.surprised)


def _closed_mouth(canvas: Canvas, f: Frame, s: Sitter, lip: Tensor) -> None:
    """Two lips along a line that bends with the smile, and teeth between them in a smile."""
    shut = 1 - s.surprised
    taper = 1 - (f.x / s.mouth_width).clamp(-1, 1) ** 2
    line = s.mouth_y + s.mouth_bend * f.x.clamp(-0.6, 0.6) ** 2
    within = f.cover(f.x.abs() - s.mouth_width)
    gape = s.smiling * 0.11 * taper
    upper = torch.maximum(line - s.lips * taper - f.y, f.y - line)
    lower = torch.maximum(line + gape - f.y, f.y - line - gape - s.lips * 1.25 * taper)
    canvas.paint(within * f.cover(upper), lip * 0.82, shut)
    canvas.paint(within * f.cover(lower), lip * 1.05, shut)
    teeth = torch.maximum(line - f.y, f.y - line - gape)
    canvas.paint(within * f.cover(teeth), colour(0.98, 0.96, 0.94, f.x) * s.tint, s.smiling)
    canvas.paint(
        within * f.cover((f.y - line).abs() - 0.020), lip * 0.42, shut * (1 - 0.5 * s.smiling)
    )


def paint_eyes(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    f = skin.features
    for side in (-1, 1):
        u, v = side * (f.x - side * s.eye_x), f.y - s.eye_y
        cos, sin = s.eye_tilt.cos(), s.eye_tilt.sin()
        # Positive tilt lifts the outer corners.
        along, across = u * cos - v * sin, u * sin + v * cos
        eye = ellipse(along, across, 0.0, 0.0, s.eye_rx, s.eye_ry)
        canvas.paint(skin.face * f.cover(eye - 0.05, 3), skin.lit * 0.78, 0.6)
        white = skin.face * f.cover(eye)
        canvas.paint(white, colour(0.98, 0.97, 0.96, f.x) * s.tint)
        _iris(canvas, f, s, white, side)
        lash = torch.maximum(eye.abs() - 0.035, across + 0.10 * s.eye_ry)
        canvas.paint(skin.face * f.cover(lash), s.skin * 0.16)
        lid = torch.maximum(eye.abs() - 0.014, -across)
        canvas.paint(skin.face * f.cover(lid), skin.lit * 0.45, 0.7)


def _iris(canvas: Canvas, f: Frame, s: Sitter, white: Tensor, side: int) -> None:
    x, y = f.x - side * s.eye_x - 0.03 * s.yaw, f.y - s.eye_y - 0.01
    radius = 0.030 + 0.78 * s.eye_ry
    disc = ellipse(x, y, 0.0, 0.0, radius, radius)
    canvas.paint(white * f.cover(disc), s.iris * 0.55)
    canvas.paint(white * f.cover(disc + 0.025), s.iris * 1.1)
    canvas.paint(white * f.cover(disc + radius * 0.52), colour(0.05, 0.04, 0.05, f.x))
    glint = ellipse(x, y, 0.35 * radius, -0.40 * radius, 0.038, 0.038)
    canvas.paint(white * f.cover(glint), colour(1, 1, 1, f.x))


def paint_brows(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    f = skin.features
    dark = (s.hair * 0.55 + s.skin * 0.05) * s.tint
    for side in (-1, 1):
        u = side * f.x - s.eye_x - 0.01
        half = s.eye_rx * 1.15
        # Positive tilt lifts the outer ends; the brow thins outwards.
        arc = parabola(u, f.y, 0.0, s.brow_y, half, 0.8, -s.brow_tilt)
        brow = arc - s.brow_thickness * (1 - 0.35 * (u / half).clamp(-1, 1))
        canvas.paint(skin.face * f.cover(brow), dark)
