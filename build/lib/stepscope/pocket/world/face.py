"""The head itself: ears, skull with light, cheeks, mole and beard."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Canvas, Frame
from stepscope.pocket.world.palette import colour
from stepscope.pocket.world.shapes import ellipse, parabola, root
from stepscope.pocket.world.sitter import FACE_TURN, Sitter


@dataclass
class Skin:
    """The lit skin (n, 3, h, w), the face's coverage (n, h, w), the frame of its features."""

    lit: Tensor
    face: Tensor
    features: Frame


def paint_ears(canvas: Canvas, f: Frame, s: Sitter) -> None:
    base = s.skin * s.tint
    for side in (-1, 1):
        x = side * (s.width + 0.30 * s.ear) + 0.03 * s.yaw
        canvas.paint(f.cover(ellipse(f.x, f.y, x, 0.12, s.ear * 0.80, s.ear * 1.15)), base * 0.88)
        canvas.paint(f.cover(ellipse(f.x, f.y, x, 0.12, s.ear * 0.42, s.ear * 0.70)), base * 0.66)


def paint_skull(canvas: Canvas, f: Frame, s: Sitter) -> Skin:
    """A superellipse: round above, from pointed to square below, lit as if it were a ball."""
    below = f.y > 0
    power = torch.where(below, s.jaw.expand_as(f.x), torch.full_like(f.x, 2.2))
    height = torch.where(below, s.chin.expand_as(f.y), torch.full_like(f.y, 0.95))
    u, v = (f.x / s.width).abs().clamp(1e-4), (f.y / height).abs().clamp(1e-4)
    radius = (u**power + v**power) ** (1 / power)
    face = f.cover((radius - 1) * s.width * 0.95)
    depth = root(1 - radius.clamp(0, 1) ** 2)
    light = f.x / s.width * s.light_x + f.y / height * s.light_y + depth
    shade = s.exposure * (0.74 + 0.27 * light.clamp(-0.3, 1.2))
    lit = s.skin * s.tint * shade[:, None]
    canvas.paint(face, lit)
    features = Frame(f.x - FACE_TURN * s.yaw, f.y, f.pixel)
    return Skin(lit, face, features)


def paint_cheeks(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    f = skin.features
    cheek = ((f.x.abs() - s.eye_x - 0.08) / 0.19) ** 2 + ((f.y - 0.42) / 0.13) ** 2
    rosy = skin.lit * colour(1.06, 0.70, 0.66, f.x)
    canvas.paint(skin.face * torch.exp(-cheek), rosy, 0.45)


def paint_mole(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    """A beauty spot that travels from the left cheek to the right one, leaping over the nose."""
    f = skin.features
    across = (s.mole - 0.5) * 2
    x = across.sign() * 0.26 + 0.40 * across
    spot = ellipse(f.x, f.y, x, 0.44, 0.075, 0.075)
    canvas.paint(skin.face * f.cover(spot), skin.lit * 0.25)


def paint_beard(canvas: Canvas, skin: Skin, s: Sitter) -> None:
    """Bare below 0.25; then it rises from the chin, and a moustache joins it above 0.6."""
    f = skin.features
    growth = ((s.beard - 0.25) / 0.75).clamp(0, 1)
    edge = s.chin + 0.05 - growth * (s.chin - 0.35) + 0.22 * torch.cos(2.6 * f.x) * (0.4 + growth)
    lips = ellipse(f.x, f.y, 0.0, s.mouth_y, s.mouth_width * 1.05, 0.06 + s.lips * 1.3)
    hairs = skin.lit / (s.skin * s.tint).clamp(min=0.05) * s.hair * s.tint * 0.85
    mask = skin.face * f.cover(edge - f.y, 3) * (1 - f.cover(lips, 2))
    canvas.paint(mask, hairs, (growth * 8).clamp(max=0.92))
    whisker = parabola(f.x, f.y, 0.0, s.mouth_y - s.lips - 0.09, s.mouth_width * 0.95, 0.5) - 0.06
    grown = ((s.beard - 0.55) / 0.1).clamp(0, 1)
    canvas.paint(skin.face * f.cover(whisker, 2), hairs * 0.9, grown * 0.95)
