"""insightface's five-point alignment in torch, batched: what an ArcFace recogniser looks at."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CROP = 112
# insightface/utils/face_align.py, arcface_dst: eyes, nose, mouth corners in a 112 x 112 crop.
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def norm_crop(
    images: Tensor,
    keypoints: Tensor,
    template: Sequence[Sequence[float]] = TEMPLATE,
    size: int = CROP,
) -> Tensor:
    """Faces brought to a template by the least-squares similarity (Umeyama 1991).

    images (n, 3, h, w), keypoints (n, 5, 2) in pixels from the first pixel's centre. template: five (x, y)
    in the crop's pixels, else ArcFace's. Returns (n, 3, size, size), bilinear, black beyond the border, as
    cv2.warpAffine in insightface.
    """
    height, width = images.shape[-2:]
    target = torch.tensor(template, device=images.device)
    centre, goal = keypoints.mean(1, keepdim=True), target.mean(0)
    source, offset = keypoints - centre, target - goal
    # crop = [[a, -b], [b, a]] image + shift, in closed form; we need its inverse.
    power = source.square().sum((1, 2))
    a = (source * offset).sum((1, 2)) / power
    b = (source[..., 0] * offset[..., 1] - source[..., 1] * offset[..., 0]).sum(1) / power
    a, b = (v[:, None, None] / (a * a + b * b)[:, None, None] for v in (a, b))
    edge = torch.arange(size, device=images.device, dtype=torch.float32)
    y, x = torch.meshgrid(edge - goal[1], edge - goal[0], indexing="ij")
    u = a * x + b * y + centre[..., 0, None]
    v = -b * x + a * y + centre[..., 1, None]
    grid = torch.stack([(u + 0.5) / width * 2 - 1, (v + 0.5) / height * 2 - 1], -1)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
