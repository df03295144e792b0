"""Where things are painted: an image, and the coordinate frames of backdrop, body and head."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from stepscope.pocket.world.shapes import Number

# A soft edge spans this many pixels.
EDGE = 1.3


class Rows:
    """A dataclass whose tensors share their first axis, the batch; indexing selects rows of all."""

    def __getitem__(self, rows: Tensor):
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})  # pyright: ignore[reportArgumentType]


@dataclass
class Frame(Rows):
    """Coordinates x, y (n, h, w), x to the right and y down, and a pixel's size in their unit."""

    x: Tensor
    y: Tensor
    pixel: Tensor

    def cover(self, distance: Tensor, soft: Number = EDGE) -> Tensor:
        """How much of each pixel lies inside a shape, its edge `soft` pixels wide."""
        return (0.5 - distance / (self.pixel * soft)).clamp(0, 1)

    def turned(self, cx: Tensor, cy: Tensor, scale: Tensor, angle: Tensor) -> "Frame":
        """The frame of something at (cx, cy) whose unit is `scale` of ours, rotated by angle."""
        cos, sin = angle.cos(), angle.sin()
        u, v = self.x - cx, self.y - cy
        return Frame((cos * u + sin * v) / scale, (cos * v - sin * u) / scale, self.pixel / scale)


def whole_frame(n: int, size: int, device: torch.device) -> Frame:
    """The image itself, from -1 to 1."""
    edge = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(edge, edge, indexing="ij")
    pixel = torch.full((n, 1, 1), 2 / size, device=device)
    return Frame(x.expand(n, -1, -1), y.expand(n, -1, -1), pixel)


@dataclass
class Canvas(Rows):
    """An image (n, 3, h, w) in [0, 1] that paint is laid upon."""

    image: Tensor

    def paint(self, mask: Tensor, paint: Tensor, opacity: Number = 1.0) -> None:
        """Lay paint (n or 1, 3, h or 1, w or 1) over the mask (n, h, w)."""
        self.image = torch.lerp(self.image, paint, (mask * opacity)[:, None])
