"""Hair: a mass behind the head, and a fringe with a parting in front of it."""

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Canvas, Frame
from stepscope.pocket.world.shapes import box, ellipse, segment
from stepscope.pocket.world.sitter import Sitter


def dome_radii(s: Sitter) -> tuple[Tensor, Tensor]:
    """Half width and half height of the hair over the skull."""
    return s.width + 0.04 + 0.22 * s.hair_volume, 0.86 + 0.30 * s.hair_volume


def _dome(f: Frame, s: Sitter) -> Tensor:
    rx, ry = dome_radii(s)
    return ellipse(f.x, f.y, 0.0, -0.16, rx, ry)


def _colours(f: Frame, s: Sitter) -> Tensor:
    """Hair under the light, with one broad gloss."""
    light = 1 + 0.16 * (f.x * s.light_x - 0.5 * f.y - 0.3).clamp(-1, 1)
    gloss = torch.exp(-(((f.x - 0.4 * s.light_x) / 0.45) ** 2) - ((f.y + 0.86) / 0.12) ** 2)
    return s.hair * s.tint * light[:, None] + 0.16 * gloss[:, None]


def paint_back(canvas: Canvas, f: Frame, s: Sitter) -> None:
    """The mass behind head and shoulders, down to the hair's length."""
    rx, _ = dome_radii(s)
    bottom = -0.10 + 1.65 * s.hair_length
    middle, half = (bottom - 0.25) / 2, ((bottom + 0.25) / 2).clamp(min=0.05)
    fall = box(
        f.x, f.y, 0.0, middle, rx * (0.94 + 0.12 * s.hair_length), half, half.clamp(max=0.22)
    )
    mass = torch.minimum(torch.maximum(_dome(f, s), f.y - 0.15), fall)
    canvas.paint(f.cover(mass), _colours(f, s) * 0.78)


def paint_front(canvas: Canvas, f: Frame, s: Sitter) -> None:
    """What falls over the forehead: two sweeps that meet at the parting."""
    part = 0.58 * s.parting
    top = -0.80 + 0.40 * s.fringe
    away = f.x - part
    # The sweep over the wider side hangs lower, as combed hair does.
    sweep = (0.62 - 0.35 * s.fringe) * away.abs() ** 1.4 + 0.10 * away * s.parting.sign() * -1
    open_below = top + sweep - f.y
    temples = f.x.abs() - s.width * 0.95
    opening = torch.maximum(open_below, temples)
    front = torch.maximum(torch.maximum(_dome(f, s), -opening), f.y + 0.02)
    locks = _colours(f, s)
    canvas.paint(f.cover(front), locks)
    rim = torch.maximum(front, (opening - 0.035).abs() - 0.035)
    canvas.paint(f.cover(rim), locks * 0.72, 0.7)
    _, ry = dome_radii(s)
    line = segment(f.x, f.y, part, top, part * 0.55, -0.12 - ry) - 0.025
    canvas.paint(f.cover(torch.maximum(line, front)), locks * 0.50, 0.8)
