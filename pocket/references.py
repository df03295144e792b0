"""What the adapters on dev read of each person of an album: photos such as a user would give."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stepscope.pocket import album, networks, shipped
from stepscope.pocket.process import Options, device
from stepscope.pocket.unet import image_encoder
from stepscope.pocket.world import attributes_row, render, sample_nuisance

EACH = 3
"""Photos of a person."""
CHUNK = 256
SEED = 77
JITTER = 0.5
"""Keypoints move as a detector's would (pixels)."""


@dataclass(frozen=True)
class Photos:
    """EACH photos of each person of an album, (people, EACH, ...).

    images: (3, 128, 128) uint8. keypoints: (5, 2) pixels. raw: the conditioning encoder's embedding as it
    comes, (512). pictures: the image encoder's, (256).
    """

    images: Tensor
    keypoints: Tensor
    raw: Tensor
    pictures: Tensor

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """For each row of the album (person, one of the photos), at random."""
        person = rows // album.RENDERS
        return person, torch.randint(EACH, rows.shape, device=rows.device)


@torch.no_grad()
def photos(said: Options, people: Tensor, seed: int = SEED) -> Photos:
    """Plain photos of some people, (people, identity), with as much drift as portraits have."""
    encoder, reader = image_encoder.load(said.models), shipped.load_conditioner(said.models)
    generator = torch.Generator(device()).manual_seed(seed)
    parts = []
    for who in people.split(CHUNK):
        several = who.repeat_interleave(EACH, 0)
        plain = attributes_row().to(who.device).expand(len(several), -1)
        drift = sample_nuisance(len(several), generator, who.device) * 0.3
        image, points = render(several, plain, drift)
        points = points + JITTER * torch.randn(
            points.shape, generator=generator, device=points.device
        )
        read = image_encoder.embed(encoder, image)
        raw = networks.raw(reader, image, points)
        parts.append(((image * 255).round().to(torch.uint8), points, raw, read))
    return Photos(*(torch.cat(p).unflatten(0, (-1, EACH)) for p in zip(*parts, strict=True)))
