"""Pictures of dev and schnell with the adapters that learnt on dev: pocket's own Euler loop."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors.torch import load_file
from torch import Tensor

from stepscope.pocket import folders
from stepscope.pocket.flow import Words, transformer, velocity
from stepscope.pocket.on_dev import eva, image_prompt, person, pulid
from stepscope.pocket.process import device
from stepscope.pocket.references import Photos
from stepscope.pocket.sampling import (
    DEV_SCHEDULER,
    DEV_STEPS,
    SCHNELL_SCHEDULER,
    SCHNELL_STEPS,
    USER_GUIDANCE,
    sigmas,
)
from stepscope.probes.adapters.pulid_network import load_pulid

AT_ONCE = 64


@dataclass(frozen=True)
class Painter:
    """A transformer with an adapter: predict(x, sigma, words, guidance, rows) is the velocity."""

    predict: Callable[[Tensor, Tensor, Words, Tensor | None, Tensor], Tensor]
    few: bool

    @torch.no_grad()
    def __call__(self, x: Tensor, told: Words, steps: int | None = None) -> Tensor:
        """Packed noise (n, 256, 64) to latents."""
        scheduler = SCHNELL_SCHEDULER if self.few else DEV_SCHEDULER
        levels = sigmas(scheduler, steps or (SCHNELL_STEPS if self.few else DEV_STEPS))
        parts = []
        for rows in torch.arange(len(x), device=x.device).split(AT_ONCE):
            now, words = x[rows], Words(*(part[rows] for part in told))
            guidance = None if self.few else now.new_full((len(now),), USER_GUIDANCE)
            for level, following in pairwise(levels):
                sigma = now.new_full((len(now),), level)
                now = now + (following - level) * self.predict(now, sigma, words, guidance, rows)
            parts.append(now)
        return torch.cat(parts)


def alone(models: Path, *, few: bool) -> tuple[FluxTransformer2DModel, Painter]:
    """Dev, or schnell where few, without an adapter."""
    model = transformer(guidance=not few, fast=False)
    name = folders.SCHNELL if few else folders.DEV
    kept = FluxTransformer2DModel.from_pretrained(models / name / "transformer")
    model.load_state_dict(kept.state_dict())
    model.requires_grad_(False)
    return model, Painter(
        lambda x, sigma, told, guidance, _: velocity(model, x, sigma, told, guidance), few
    )


def with_image_prompt(models: Path, seen: Photos, *, few: bool) -> Painter:
    """With the IP-Adapter of people, each reading the first photo of a person."""
    model, _ = alone(models, few=few)
    projection, attentions = image_prompt.new(), image_prompt.attached(model)
    image_prompt.fill(load_file(models / image_prompt.FILE), projection, attentions)
    tokens = projection(seen.pictures[:, 0])
    return Painter(
        lambda x, sigma, told, guidance, rows: velocity(
            model, x, sigma, told, guidance, image=tokens[rows]
        ),
        few,
    )


def with_pulid(models: Path, seen: Photos, *, few: bool) -> Painter:
    """With PuLID, likewise."""
    model, _ = alone(models, few=few)
    network = load_pulid(models / pulid.FILE, torch.float32).to(device())
    output, hidden = eva.read(eva.load(models), seen.images[:, :1], seen.keypoints[:, :1])
    face = torch.cat([seen.raw[:, 0], output[:, 0]], 1)
    tokens = network.tokens(face, hidden[:, 0].float())
    pulid.attach(model, network)

    def predict(x: Tensor, sigma: Tensor, told: Words, guidance: Any, rows: Tensor) -> Tensor:
        network.identity = tokens[rows]
        return velocity(model, x, sigma, told, guidance)

    return Painter(predict, few)


def with_person(models: Path, *, few: bool) -> Painter:
    """With the LoRA of one person."""
    model, painter = alone(models, few=few)
    model.load_lora_adapter(str(models / person.FOLDER), weight_name=LORA_WEIGHT_NAME_SAFE)
    return painter
