"""Faces broken on purpose, the way generated ones break: melted, displaced, warped, torn.

What the wholeness read-out learns from, with a map of where each picture was harmed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stepscope.pocket.world import SIZE

# A map's cell is this many pixels wide; it counts as broken above, and as whole below, these
# mean absolute differences from the unharmed picture.
CELL, BROKEN, WHOLE = 8, 0.035, 0.012


def _spread(n: int, low: float, high: float, device: torch.device) -> Tensor:
    return low + (high - low) * torch.rand(n, 1, 1, device=device)


def discs(keypoints: Tensor) -> Tensor:
    """Soft discs (n, h, w) in [0, 1]: three of four on a feature, the rest on the outline."""
    n, where = len(keypoints), keypoints.device
    feature = keypoints[torch.arange(n, device=where), torch.randint(5, (n,), device=where)]
    middle = keypoints.mean(1)
    reach = (keypoints[:, 1] - keypoints[:, 0]).norm(dim=-1, keepdim=True)
    angle = torch.rand(n, 1, device=where) * 2 * torch.pi
    outline = middle + 1.15 * reach * torch.cat([angle.cos(), angle.sin()], 1)
    centre = torch.where(torch.rand(n, 1, device=where) < 0.75, feature, outline)
    centre = centre + 3 * torch.randn(n, 2, device=where)
    edge = torch.arange(SIZE, device=where, dtype=torch.float32)
    dx, dy = edge - centre[:, :1], edge - centre[:, 1:]
    distance = (dy[:, :, None] ** 2 + dx[:, None, :] ** 2).sqrt()
    return torch.sigmoid((_spread(n, 5, 15, where) - distance) / _spread(n, 0.7, 2.5, where))


def blurred(images: Tensor) -> Tensor:
    """Pictures without anything smaller than a sixteenth of them."""
    small = F.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic").clamp(0, 1)


def displaced(images: Tensor, pixels: Tensor) -> Tensor:
    """Each pixel fetched from a place (n, 2, h, w) pixels away."""
    n = len(images)
    still = torch.eye(2, 3, device=images.device).expand(n, -1, -1)
    grid = F.affine_grid(still, list(images.shape), align_corners=False)
    moved = grid + pixels.permute(0, 2, 3, 1) * 2 / SIZE
    return F.grid_sample(images, moved, padding_mode="border", align_corners=False)


def broken(images: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures with one fault each, and the discs where it is (n, h, w).

    A fault melts its disc into a blur, fetches it from elsewhere in the face (a missing, doubled
    or slipped feature), warps it, or takes it from the next picture of the batch.
    """
    n, where = len(images), images.device
    disc = discs(keypoints)
    kind = torch.randint(4, (n, 1, 1, 1), device=where)
    angle = torch.rand(n, device=where) * 2 * torch.pi
    slip = (
        torch.stack([angle.cos(), angle.sin()], 1)[..., None, None]
        * _spread(n, 4, 26, where)[:, None]
    )
    noise = torch.randn(n, 2, 9, 9, device=where) * _spread(n, 3, 8, where)[:, None]
    warp = F.interpolate(noise, size=(SIZE, SIZE), mode="bicubic")
    pixels = torch.where(kind == 1, slip, torch.where(kind == 2, warp, torch.zeros_like(warp)))
    moved = displaced(images, pixels * disc[:, None])
    source = torch.where(kind == 0, blurred(images), images.roll(1, 0))
    blend = disc[:, None] * ((kind == 0) | (kind == 3))
    return torch.lerp(moved, source, blend), disc


def fault_map(images: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells differ from the whole picture (n, 16, 16) in {0, 1}, and which are sure."""
    change = F.avg_pool2d((images - whole).abs().mean(1, keepdim=True), CELL)[:, 0]
    return (change > BROKEN).float(), ((change > BROKEN) | (change < WHOLE)).float()
