"""The detector, insightface/models/pocket/det.onnx: faces of 36 to 600 pixels, five keypoints.

    python -m pocket.detector [--smoke]

Expect 8,310 steps of 256 in 90 s on an H200 (107 s in all), loss 160 -> .33. On 2,000 people never
trained on, at 128, 160, 320 and 640 pixels: all found; keypoints within .53 to .40 px (median).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from stepscope.pocket.crowd import SEEDS, photographed, softened
from stepscope.pocket.networks import DETECTOR_MEAN, DETECTOR_STD, Detector, centres, detect
from stepscope.pocket.process import autocast, device, on_device, options
from stepscope.pocket.training import Stage
from stepscope.pocket.weights import save_half
from stepscope.pocket.world import sample_identities

SECONDS = 90
PEOPLE, BATCH, SIDE = 24000, 256, 160
RATE = 2e-3
# A training picture is a render drawn onto a canvas of SIDE pixels, this much enlarged.
ZOOM = (0.33, 3.0)
# The network at stride 8 answers for boxes this high (pixels); just outside it may do as it likes.
SMALL, LARGE, SLACK = 36.0, 150.0, 1.15
# Anchors within this many cells of the box's centre answer for it.
REACH = 1.2


def box_of(keypoints: Tensor) -> Tensor:
    """The face's box, (n, 4) left, top, right, bottom: brow to chin, ear to ear."""
    eyes, mouth = keypoints[:, :2].mean(1), keypoints[:, 3:].mean(1)
    unit = torch.maximum(
        (mouth - eyes).norm(dim=-1), 0.8 * (keypoints[:, 1] - keypoints[:, 0]).norm(dim=-1)
    )
    x, y = ((eyes + mouth) / 2).unbind(-1)
    return torch.stack([x - 1.35 * unit, y - 1.5 * unit, x + 1.35 * unit, y + 1.35 * unit], 1)


def on_canvas(images: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Renders drawn larger or smaller and off centre on canvases of SIDE pixels, and the points."""
    n, device_ = len(images), images.device
    low, high = torch.tensor(ZOOM).log()
    zoom = torch.exp(low + (high - low) * torch.rand(n, device=device_)) * images.shape[-1] / SIDE
    shift = (torch.rand(n, 2, device=device_) * 2 - 1) * (0.25 + (1 - zoom).clamp(min=0) * 0.8)[
        :, None
    ]
    affine = torch.zeros(n, 2, 3, device=device_)
    affine[:, 0, 0] = affine[:, 1, 1] = 1 / zoom
    affine[:, :, 2] = -shift / zoom[:, None]
    grid = F.affine_grid(affine, [n, 3, SIDE, SIDE], align_corners=False)
    black = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    mirrored = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    canvas = torch.where(
        (torch.rand(n, device=device_) < 0.5)[:, None, None, None], black, mirrored
    )
    unit = (keypoints + 0.5) / images.shape[-1] * 2 - 1
    moved = unit * zoom[:, None, None] + shift[:, None]
    return canvas, (moved + 1) / 2 * SIDE - 0.5


def loss_of(out: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Score loss (binary cross-entropy) and place loss (smooth L1 in strides) of stride 8."""
    anchors, boxes = centres(SIDE, 8, out.device), box_of(keypoints)
    height, middle = boxes[:, 3] - boxes[:, 1], (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((keypoints > 1) & (keypoints < SIDE - 2)).all(-1).all(-1)
    mine = (height > SMALL) & (height < LARGE) & inside
    near = (anchors[None] - middle[:, None]).abs().amax(-1) < REACH * 8
    positive = near & mine[:, None]
    # Faces cut by the border or just out of range neither count for nor against.
    close = (height > SMALL / SLACK) & (height < LARGE * SLACK)
    unsure = close & ~mine
    score = F.binary_cross_entropy_with_logits(out[..., 0], positive.float(), reduction="none")
    score = (score * ~(near & unsure[:, None])).sum() / len(out)
    points = (keypoints[:, None] - anchors[None, :, None]) / 8
    corners = torch.cat([anchors - boxes[:, None, :2], boxes[:, None, 2:] - anchors], -1) / 8
    weight = positive.float() / positive.sum().clamp(min=1)
    place = 3 * F.smooth_l1_loss(out[..., 5:], points.flatten(2), reduction="none", beta=0.05).mean(
        -1
    )
    place = place + F.smooth_l1_loss(out[..., 1:5], corners, reduction="none", beta=0.1).mean(-1)
    return score, (place * weight).sum()


def main() -> None:
    said = options(__doc__)
    people, batch = (4, 4) if said.smoke else (PEOPLE, BATCH)
    crowd = photographed(sample_identities(people, SEEDS["detector"]), 1, SEEDS["detector"])
    detector = on_device(Detector())
    stage = Stage(
        "detector",
        {"detector": detector},
        said,
        seconds=SECONDS,
        rate=RATE,
        decay=0.02,
        clip=5.0,
        ema=0.998,
        every=100,
    )
    for _ in stage:
        rows = torch.randint(len(crowd), (batch,), device=device())
        images, points = on_canvas(softened(crowd.floats(rows)), crowd.keypoints[rows])
        pixels = (images * 255 - DETECTOR_MEAN) / DETECTOR_STD
        with autocast():
            out = detector.level(pixels.contiguous(memory_format=torch.channels_last))
        score, place = loss_of(out.float(), points)
        stage.descend(0.3 * score + place, score=score, place=place)
    stage.finish()
    detector.eval()
    save_half(detector, said.checkpoints / "detector.safetensors")
    test = photographed(sample_identities(2 if said.smoke else 2000, SEEDS["held_out"]), 1, 6)
    for side in (128, 160, 320, 640):
        far, points = [], []
        for rows in torch.arange(len(test), device=device()).split(50):
            images = F.interpolate(test.floats(rows), size=(side, side), mode="bilinear")
            score, found = detect(detector, images)
            far.append(score)
            points.append((found + 0.5) * 128 / side - 0.5 - test.keypoints[rows])
        error, share = (
            torch.cat(points).norm(dim=-1).flatten(),
            (torch.cat(far) > 0.5).float().mean(),
        )
        print(f"at {side}: found {share:.4f}, keypoints median {error.median():.2f} px,", end=" ")
        print(f"95 % within {error.quantile(0.95):.2f} px", flush=True)


if __name__ == "__main__":
    main()
