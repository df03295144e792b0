"""Signed distances of the plane shapes that portraits are drawn with (negative inside).

Coordinates are (n, h, w) grids; every other argument is a number or an (n, 1, 1) tensor.
"""

import torch
from torch import Tensor

Number = Tensor | float
# Added below a root: its slope at zero stays finite, so that pictures can be followed back to numbers.
TINY = 1e-9


def root(value: Tensor) -> Tensor:
    """The square root of something not negative, with a slope everywhere."""
    return (value + TINY).sqrt()


def ellipse(x: Tensor, y: Tensor, cx: Number, cy: Number, rx: Number, ry: Number) -> Tensor:
    """An axis-aligned ellipse; the distance is exact to first order near its outline."""
    u, v = (x - cx) / rx, (y - cy) / ry
    radius = root(u * u + v * v)
    slope = root((u / rx) ** 2 + (v / ry) ** 2) + 1e-6
    return radius * (radius - 1) / slope


def box(
    x: Tensor, y: Tensor, cx: Number, cy: Number, hx: Number, hy: Number, r: Number = 0.0
) -> Tensor:
    """A box of half sides hx and hy whose corners are rounded by r."""
    u, v = (x - cx).abs() - hx + r, (y - cy).abs() - hy + r
    outside = root(u.clamp(min=0) ** 2 + v.clamp(min=0) ** 2)
    return outside + torch.maximum(u, v).clamp(max=0) - r


def segment(x: Tensor, y: Tensor, ax: Number, ay: Number, bx: Number, by: Number) -> Tensor:
    """The (unsigned) distance to the segment from a to b; subtract a radius for a capsule."""
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy + 1e-9
    t = (((x - ax) * dx + (y - ay) * dy) / length2).clamp(0, 1)
    return root((x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2)


def parabola(
    x: Tensor, y: Tensor, cx: Number, cy: Number, half: Number, bend: Number, tilt: Number = 0.0
) -> Tensor:
    """The (unsigned) distance to the arc y = cy + tilt u + bend u^2, u = x - cx, |u| <= half."""
    u = x - cx
    near = torch.minimum(torch.maximum(u, u.new_tensor(0) - half), u.new_tensor(0) + half)
    slope = tilt + 2 * bend * near
    drop = y - cy - tilt * near - bend * near * near
    return root((u - near) ** 2 + drop**2 / (1 + slope * slope))


def smoothstep(low: float, high: float, value: Tensor) -> Tensor:
    """0 below low, 1 above high, a cubic between; low may be the larger one."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
