"""Landmark unrest: how little the detector agrees with itself about a face that should be whole.

It needs no training: where an eye is missing or a mouth has melted, the anchors around it place it
in different spots, and so does the mirrored picture. On the 96 shipped portraits against the same
broken by `faults.broken`: area under the curve .77; 38 % of the broken ones are more restless than
98 % of the whole ones. It is blind to most faults of the outline, and sees
nothing of what readers of generated faces saw: .14 (`by_eye.py`).
"""

import torch
from torch import Tensor

from pocket.networks import DETECTOR_MEAN, DETECTOR_STD, Detector, centres, detect

# As many anchors as stand within reach of a face's centre at stride 8.
ANCHORS_ASKED = 8
# Keypoints of a mirrored face, back in insightface's order.
MIRRORED = (1, 0, 2, 4, 3)


@torch.no_grad()
def landmark_unrest(detector: Detector, images: Tensor) -> Tensor:
    """Disagreement of the surest anchors plus that of the mirror, mean of the five points.

    images (n, 3, s, s) in [0, 1]; returns (n,) pixels, about 0.8 for a whole face.
    """
    size = images.shape[-1]
    level = detector.level((images * 255 - DETECTOR_MEAN) / DETECTOR_STD)
    surest = level[..., 0].topk(ANCHORS_ASKED, 1)[1]
    offsets = level[..., 5:].gather(1, surest[..., None].expand(-1, -1, 10)).unflatten(-1, (5, 2))
    points = offsets * 8 + centres(size, 8, images.device)[surest][:, :, None]
    spread = points.std(1).norm(dim=-1).mean(1)
    straight, mirrored = detect(detector, images)[1], detect(detector, images.flip(-1))[1]
    back = torch.stack([size - 1 - mirrored[..., 0], mirrored[..., 1]], -1)[:, list(MIRRORED)]
    return spread + (back - straight).norm(dim=-1).mean(1)
