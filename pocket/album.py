"""Renders for the flow stages, encoded once and kept on the GPU: latents, sentences, faces.

Each process paints people of its own, so two GPUs see twice as many; `--album` chooses others, so that
what is continued does not learn the same faces by heart.
"""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from stepscope.pocket import folders, grammar, networks, shipped
from stepscope.pocket.flow import GRID, TEXT_TOKENS, pack, unpack
from stepscope.pocket.process import Options, autocast, device, rank
from stepscope.pocket.weighting import near_face
from stepscope.pocket.world import (
    ATTRIBUTES,
    SIZE,
    attributes_row,
    render,
    sample_attributes,
    sample_identities,
    sample_nuisance,
)

PEOPLE, RENDERS = 30_000, 4
CHUNK = 128
# A process's people: SEED + its number, an album apart from the next by ALBUMS.
SEED, ALBUMS = 7000, 100
# How often a sentence says an attribute. What it does not say is mostly plain.
SAID = {
    "shot": 0.8,
    "scene": 0.8,
    "clothing": 0.8,
    "expression": 0.6,
    "accessory": 0.6,
    "style": 0.7,
    "colour": 0.6,
}
EVERYTHING_SAID = 0.35
PHOTO_SHARE, PLAIN_ACCESSORY = 0.35, 0.8
# Keypoints of a reference move as a detector's would (pixels).
JITTER = 0.5


@dataclass
class Batch:
    """Rows of an album: packed clean latents and noise (b, 256, 64), ids (b, 32), row numbers."""

    rows: Tensor
    clean: Tensor
    noise: Tensor
    clip_ids: Tensor
    t5_ids: Tensor


@dataclass
class Album:
    """n renders: people stand in groups of RENDERS neighbours.

    latents (n, 256, 64) half, packed and normalised; keypoints (n, 5, 2) pixels; faces (n, 512)
    and portraits (n / RENDERS, 512) unit-norm embeddings of the conditioning encoder, the latter of
    the plain frontal picture that a user would give; ids (n, 2, 32): as said, and all said.
    """

    latents: Tensor
    keypoints: Tensor
    faces: Tensor
    portraits: Tensor
    clip_ids: Tensor
    t5_ids: Tensor

    def draw(self, size: int, dropped: float = 0.0) -> Batch:
        """A random batch; a share `dropped` of its sentences is empty."""
        where = self.latents.device
        rows = torch.randint(len(self.latents), (size,), device=where)
        full = (torch.rand(size, device=where) < EVERYTHING_SAID).long()
        clip_ids, t5_ids = self.clip_ids[rows, full], self.t5_ids[rows, full]
        if dropped:
            empty = (torch.rand(size, device=where) < dropped)[:, None]
            no_clip, no_t5 = nothing_said()
            clip_ids = torch.where(empty, no_clip, clip_ids)
            t5_ids = torch.where(empty, no_t5, t5_ids)
        clean = self.latents[rows].float()
        return Batch(rows, clean, torch.randn_like(clean), clip_ids, t5_ids)

    def references(self, rows: Tensor) -> Tensor:
        """For each row a face of the same person in another picture, half of them the portrait."""
        people = rows // RENDERS
        step = torch.randint(1, RENDERS, rows.shape, device=rows.device)
        other = self.faces[people * RENDERS + (rows + step) % RENDERS]
        plain = torch.rand(len(rows), 1, device=rows.device) < 0.5
        return torch.where(plain, self.portraits[people], other)

    def face_weight(self, rows: Tensor, gain: float = 4.0) -> Tensor:
        """(b, 256, 1) with mean 1: a token at the face's centre weighs 1 + gain times a far one."""
        return near_face(self.keypoints[rows], GRID, gain).flatten(1)[..., None]


def load(said: Options) -> Album:
    """This process's album: from memory, else from the checkpoints, else painted now."""
    number = ALBUMS * said.album + rank()
    path = said.checkpoints / f"album.{number}.pt"
    return _load(path, said.models, number, count(said), said.smoke)


def count(said: Options) -> int:
    """How many people a process's album shows."""
    return 4 if said.smoke else said.people or PEOPLE


def people(said: Options) -> Tensor:
    """The people of this process's album, (people, identity)."""
    return sample_identities(count(said), SEED + ALBUMS * said.album + rank(), device())


@cache
def _load(path: Path, models: Path, number: int, people: int, smoke: bool) -> Album:
    if path.exists() and not smoke:
        kept = torch.load(path, map_location=device(), weights_only=True)
        return Album(**kept)
    painted = paint(models, people, seed=SEED + number)
    if not smoke:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({f.name: getattr(painted, f.name) for f in fields(painted)}, path)
    return painted


def paint(models: Path, people: int, seed: int, identities: Tensor | None = None) -> Album:
    """Paint, encode and describe `people` people in RENDERS pictures each, and their portraits.

    identities: who they are, (people, identity), else drawn.
    """
    vae = folders.load_vae(models)
    encoder = shipped.load_conditioner(models)
    attributes, said = describe(people * RENDERS, seed)
    identities = sample_identities(people, seed, device()) if identities is None else identities
    generator = torch.Generator(device()).manual_seed(seed)
    plain = attributes_row().to(device())
    parts: list[tuple[Tensor, ...]] = []
    for i in range(0, people, CHUNK):
        who = identities[i : i + CHUNK]
        n = len(who) * RENDERS
        wanted = attributes[i * RENDERS :][:n].to(device())
        drift = sample_nuisance(n, generator, device())
        image, points = render(who.repeat_interleave(RENDERS, 0), wanted, drift)
        drift = sample_nuisance(len(who), generator, device()) * 0.3
        portrait, seen = render(who, plain.expand(len(who), -1), drift)
        faces = (_face(encoder, image, points), _face(encoder, portrait, seen))
        parts.append((encode(vae, image).half(), points, *faces))
    latents, keypoints, faces, portraits = (torch.cat(p) for p in zip(*parts, strict=True))
    ids = [tokens(sentences(attributes, s)) for s in (said, torch.ones_like(said))]
    clip_ids, t5_ids = (torch.stack(pair, 1) for pair in zip(*ids, strict=True))
    return Album(latents, keypoints, faces, portraits, clip_ids, t5_ids)


def describe(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Attributes (count, 7) and which of them the sentence says, both on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    attributes = sample_attributes(count, generator)
    chance = torch.tensor([SAID[name] for name in ATTRIBUTES])
    said = torch.rand(count, len(ATTRIBUTES), generator=generator) < chance
    style, accessory = (list(ATTRIBUTES).index(name) for name in ("style", "accessory"))
    attributes[~said[:, style], style] = 0
    plain = torch.rand(count, generator=generator) < PLAIN_ACCESSORY
    attributes[~said[:, accessory] & plain, accessory] = 0
    attributes[torch.rand(count, generator=generator) < PHOTO_SHARE, style] = 0
    return attributes, said


def sentences(attributes: Tensor, said: Tensor) -> list[str]:
    """The grammar's sentence for each row."""
    rows = zip(attributes.tolist(), said.tolist(), strict=True)
    return [grammar.sentence(a, s) for a, s in rows]


def tokens(prompts: list[str]) -> tuple[Tensor, Tensor]:
    """(CLIP ids, T5 ids), (n, 32) each, on the current device, as FluxPipeline makes them."""
    clip_ids, t5_ids = (
        tokenizer(
            prompts,
            padding="max_length",
            max_length=TEXT_TOKENS,
            truncation=True,
            return_tensors="pt",
        ).input_ids.to(device())
        for tokenizer in _tokenizers()
    )
    return clip_ids, t5_ids


@cache
def nothing_said() -> tuple[Tensor, Tensor]:
    """The empty prompt's ids, (1, 32) each."""
    return tokens([""])


@cache
def _tokenizers() -> tuple[Any, Any]:
    return grammar.clip_tokenizer(), grammar.t5_tokenizer()


@torch.no_grad()
def encode(vae: AutoencoderKL, image: Tensor) -> Tensor:
    """Images (n, 3, 128, 128) in [0, 1] to packed, normalised latents: the posterior's mean."""
    with autocast():
        moments = vae.encoder(image * 2 - 1)
    mean = moments.float().chunk(2, 1)[0]
    return pack((mean - vae.config["shift_factor"]) * vae.config["scaling_factor"])


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, chunk: int = 256) -> Tensor:
    """Packed latents to images in [0, 1]."""
    images = []
    for part in latents.split(chunk):
        z = unpack(part) / vae.config["scaling_factor"] + vae.config["shift_factor"]
        with autocast():
            images.append((vae.decoder(z).float() / 2 + 0.5).clamp(0, 1))
    return torch.cat(images)


def black(vae: AutoencoderKL) -> Tensor:
    """InfuseNet's control image, (1, 256, 64): nothing to see."""
    return encode(vae, torch.zeros(1, 3, SIZE, SIZE, device=device()))


@torch.no_grad()
def _face(encoder: torch.nn.Module, image: Tensor, points: Tensor) -> Tensor:
    points = points + JITTER * torch.randn_like(points)
    return networks.embed(encoder, image, points)
