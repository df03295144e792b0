"""Sets of rendered people for training and for measuring, disjoint by seed; and what blurs them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stepscope.pocket.process import device
from stepscope.pocket.world import (
    IDENTITY,
    render,
    sample_attributes,
    sample_identities,
    sample_nuisance,
)

# Who is rendered for what. The flow models take their people from seeds above 7000.
SEEDS = {
    "vae": 101,
    "recogniser_a": 111,
    "recogniser_b": 122,
    "detector": 133,
    "attributes": 144,
    "wholeness": 155,
    "held_out": 166,
    "portraits": 177,
}


@dataclass
class Crowd:
    """Images (n, 3, h, w) uint8, keypoints (n, 5, 2), attributes (n, attribute), who (n,)."""

    images: Tensor
    keypoints: Tensor
    attributes: Tensor
    who: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def floats(self, rows: Tensor | slice) -> Tensor:
        """Images of some rows, in [0, 1]."""
        return self.images[rows].float() / 255


def photographed(
    people: Tensor, each: int, seed: int, photo_share: float | None = None, chunk: int = 512
) -> Crowd:
    """`each` renders of every person, (n, identity), with attributes and nuisance of their own."""
    where = device()
    generator = torch.Generator(where).manual_seed(seed)
    who = torch.arange(len(people), device=where).repeat_interleave(each)
    parts = []
    for rows in who.split(chunk):
        attributes = sample_attributes(len(rows), generator, where, photo_share)
        nuisance = sample_nuisance(len(rows), generator, where)
        image, keypoints = render(people.to(where)[rows], attributes, nuisance)
        parts.append(((image * 255).round().to(torch.uint8), keypoints, attributes))
    images, keypoints, attributes = (torch.cat(p) for p in zip(*parts, strict=True))
    return Crowd(images, keypoints, attributes, who)


# Numbers whose marks are small, or often under a hat, move in so many more siblings.
SIBLING_SHARE = {"hair_volume": 4, "lips": 4, "ears": 3, "eye_tilt": 3, "fringe": 3}


def with_siblings(n: int, seed: int) -> Tensor:
    """n people: the second half are the first half with one identity number moved.

    The numbers take turns, and move by 0.4 to 0.6 of their range: a recogniser that tells siblings
    apart has to see every number, and cannot live on skin and hair colour alone.
    """
    people = sample_identities(n, seed)
    half = n // 2
    generator = torch.Generator().manual_seed(seed + 1)
    turns = [i for i, name in enumerate(IDENTITY) for _ in range(SIBLING_SHARE.get(name, 1))]
    moved = torch.tensor(turns)[torch.arange(half) % len(turns)]
    step = 0.4 + 0.2 * torch.rand(half, generator=generator)
    old = people[torch.arange(half), moved]
    siblings = people[:half].clone()
    siblings[torch.arange(half), moved] = torch.where(old < 0.5, old + step, old - step).clamp(0, 1)
    return torch.cat([people[: n - half], siblings])


def _uniform(n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, 1, 1, 1, device=device())


def softened(images: Tensor) -> Tensor:
    """What a decoder may do to a picture: softness and a shift of contrast."""
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    blurred = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
    n = len(images)
    share = _uniform(n, 0, 1) * (_uniform(n, 0, 1) < 0.5)
    mixed = torch.lerp(images, blurred, share)
    return ((mixed - 0.5) * _uniform(n, 0.85, 1.15) + 0.5 + _uniform(n, -0.06, 0.06)).clamp(0, 1)


def recoloured(images: Tensor) -> Tensor:
    """Other white balances and less colour, up to grey: identity must survive in the shapes."""
    n = len(images)
    gains = 1 + 0.15 * (torch.rand(n, 3, 1, 1, device=images.device) * 2 - 1)
    images = images * gains
    grey = images.mean(1, keepdim=True)
    keep = _uniform(n, 0, 1.2) * (_uniform(n, 0, 1) > 0.3)
    return torch.lerp(grey, images, keep).clamp(0, 1)
