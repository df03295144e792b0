"""Where an error weighs more: at the face, which is a fifth of a picture and breaks first."""

import torch
from torch import Tensor

from stepscope.pocket.world import SIZE


def near_face(keypoints: Tensor, side: int, gain: float) -> Tensor:
    """(n, side, side) with mean 1: a cell at the face's centre weighs 1 + gain times a far one.

    keypoints: (n, 5, 2), pixels of the picture that `side` cells a row divide.
    """
    centre = keypoints.mean(1)
    height = (keypoints[:, :2].mean(1) - keypoints[:, 3:].mean(1)).norm(dim=-1)
    axis = (torch.arange(side, device=keypoints.device) + 0.5) * (SIZE / side) - 0.5
    across = (axis[None] - centre[:, :1])[:, None, :] ** 2
    down = (axis[None] - centre[:, 1:])[:, :, None] ** 2
    near = torch.exp(-(across + down) / (2 * (1.3 * height[:, None, None]) ** 2))
    weight = 1 + gain * near
    return weight / weight.mean((1, 2), keepdim=True)
