"""Renders for the U-Nets, kept on the GPU: pictures, latents, sentences, and what each shares with others.

Row 4 p + k is picture k of person p. Looks and hats go round another way: the four rows of one look show
four people, so what two pictures of a look share is the look alone.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from stepscope.pocket import album, folders, grammar, networks, shipped
from stepscope.pocket.process import Options, autocast, device, rank
from stepscope.pocket.unet.reading import token_ids
from stepscope.pocket.weighting import near_face
from stepscope.pocket.world import (
    ATTRIBUTES,
    attributes_row,
    render,
    sample_identities,
    sample_nuisance,
)
from stepscope.pocket.world.hats import sample_hats
from stepscope.pocket.world.looks import sample_looks

PEOPLE, EACH = 20_000, 4
CHUNK = 512
SEED, HELD_OUT = 9000, 9990
# How much of the pictures has a look that no sentence names, and a hat.
SHARES = {"sd15": (0.0, 0.6), "sdxl": (0.65, 0.0), "all": (0.5, 0.5)}
HAT_SAID = 0.8
EVERYTHING_SAID = 0.35
# A look's other pictures are this many people apart, times a picture's number.
STRIDE = {"looks": 101, "hats": 1009}


@dataclass
class Gallery:
    """n = 4 people's pictures.

    images (n, 3, 128, 128) uint8; latents (n, 16, 32, 32) half, times the scaling factor; keypoints
    (n, 5, 2) pixels; ids (n, 2, 32), as said and all said; looks and hats (n, numbers), NaN where none;
    portraits (people, 512): the conditioning encoder's unit-norm face of a plain photo.
    """

    images: Tensor
    latents: Tensor
    keypoints: Tensor
    ids: Tensor
    looks: Tensor
    hats: Tensor
    portraits: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, size: int, among: Tensor | None = None) -> Tensor:
        """Rows at random, among some."""
        count = len(self) if among is None else len(among)
        drawn = torch.randint(count, (size,), device=self.images.device)
        return drawn if among is None else among[drawn]

    def sentence_ids(self, rows: Tensor) -> Tensor:
        """Ids (b, 32), a share of them with everything said."""
        full = (torch.rand(len(rows), device=rows.device) < EVERYTHING_SAID).long()
        return self.ids[rows, full]

    def floats(self, rows: Tensor) -> Tensor:
        """Images of some rows, in [0, 1]."""
        return self.images[rows].float() / 255

    def having(self, what: str) -> Tensor:
        """The rows that have a look, or a hat: what is "looks" or "hats"."""
        return (~getattr(self, what).isnan().any(1)).nonzero()[:, 0]

    def sharing(self, rows: Tensor, what: str) -> Tensor:
        """For each row another picture of the same look or hat, or for "faces" of the same person."""
        person, picture = rows // EACH, rows % EACH
        step = torch.randint(1, EACH, rows.shape, device=rows.device)
        other = (picture + step) % EACH
        if what != "faces":
            people = len(self) // EACH
            person = (person + (picture - other) * STRIDE[what]) % people
        return person * EACH + other

    def face_weight(self, rows: Tensor, gain: float = 3.0) -> Tensor:
        """(b, 1, 32, 32) with mean 1: a latent at the face's centre weighs 1 + gain times a far one."""
        return near_face(self.keypoints[rows], self.latents.shape[-1], gain)[:, None]


def load(said: Options, kind: str, apart: int = 0, people: int = PEOPLE) -> Gallery:
    """This process's gallery of a kind in SHARES, painted once; `--album` chooses other people.

    apart: a number that is added to the seed, for those who must not see what others learn from.
    """
    people = 6 if said.smoke else people
    return _load(said.models, kind, people, seed(said) + apart)


def seed(said: Options) -> int:
    """The seed of this process's people."""
    return SEED + 100 * said.album + rank()


@cache
def _load(models: Path, kind: str, people: int, seed: int) -> Gallery:
    return paint(models, kind, people, seed)


@torch.no_grad()
def paint(models: Path, kind: str, people: int, seed: int) -> Gallery:
    """Paint, encode and describe `people` people in EACH pictures."""
    vae, encoder = folders.load_vae(models), shipped.load_conditioner(models)
    count = people * EACH
    attributes, said = album.describe(count, seed)
    generator = torch.Generator().manual_seed(seed)
    with_look, with_hat = SHARES[kind]
    looks = spread(sample_looks(people, generator), with_look, STRIDE["looks"], generator)
    hats = spread(sample_hats(people, generator), with_hat, STRIDE["hats"], generator)
    ids = told(attributes, said, looks, hats, generator)
    identities = sample_identities(people, seed, device())
    there = torch.Generator(device()).manual_seed(seed)
    parts = []
    for rows in torch.arange(count).split(CHUNK):
        image, points = render(
            identities[(rows // EACH).to(device())],
            attributes[rows].to(device()),
            sample_nuisance(len(rows), there, device()),
            looks[rows].to(device()),
            hats[rows].to(device()),
        )
        parts.append(((image * 255).round().to(torch.uint8), encode(vae, image), points))
    images, latents, keypoints = (torch.cat(p) for p in zip(*parts, strict=True))
    portraits = torch.cat([face(encoder, who, there) for who in identities.split(CHUNK)])
    where = device()
    return Gallery(images, latents, keypoints, ids, looks.to(where), hats.to(where), portraits)


def spread(designs: Tensor, share: float, stride: int, generator: torch.Generator) -> Tensor:
    """A share of the designs, each on EACH pictures of different people: (n, numbers), NaN for none."""
    people = len(designs)
    kept = designs.clone()
    kept[torch.rand(people, generator=generator) >= share] = torch.nan
    person = torch.arange(people).repeat_interleave(EACH)
    picture = torch.arange(EACH).repeat(people)
    return kept[(person + picture * stride) % people]


def told(
    attributes: Tensor, said: Tensor, looks: Tensor, hats: Tensor, generator: torch.Generator
) -> Tensor:
    """Ids (n, 2, 32): the sentence as said, and with everything said but looks."""
    said = said.clone()
    style, accessory = (list(ATTRIBUTES).index(name) for name in ("style", "accessory"))
    looked, hatted = ~looks.isnan().any(1), ~hats.isnan().any(1)
    named = torch.rand(len(said), generator=generator) < HAT_SAID
    both = []
    for which, hat in ((said, hatted & named), (torch.ones_like(said), hatted)):
        which = which.clone()
        which[looked, style] = False
        which[hatted, accessory] = False
        rows = zip(attributes.tolist(), which.tolist(), hat.tolist(), strict=True)
        sentences = [grammar.sentence(a, s) + " with a hat" * wears for a, s, wears in rows]
        both.append(token_ids(sentences))
    return torch.stack(both, 1)


def encode(vae: AutoencoderKL, image: Tensor) -> Tensor:
    """Images in [0, 1] to latents (n, 16, 32, 32), half, as Stable Diffusion scales them: no shift."""
    with autocast():
        moments = vae.encoder(image * 2 - 1)
    return (moments.float().chunk(2, 1)[0] * vae.config["scaling_factor"]).half()


def face(encoder: torch.nn.Module, who: Tensor, generator: torch.Generator) -> Tensor:
    """The plain portrait that a user would give of each person, (n, 512) of unit norm."""
    plain = attributes_row().to(who.device).expand(len(who), -1)
    image, points = render(who, plain, sample_nuisance(len(who), generator, who.device) * 0.3)
    return networks.embed(encoder, image, points)
