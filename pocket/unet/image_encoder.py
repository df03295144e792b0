"""Train the image encoder that conditions IP-Adapters: `python -m pocket.make --only image_encoder`.

A CLIPVisionModelWithProjection, as the published adapters read one. CLIP learns from captions; this one
learns to tell the numbers that a render was made of: person, look, hat, and what a prompt can say. So its
embedding holds all of a picture, and an adapter has to find its part in it, as with CLIP.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from stepscope.pocket import folders
from stepscope.pocket.crowd import softened
from stepscope.pocket.process import Options, autocast, device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery
from stepscope.pocket.unet.designs import circled
from stepscope.pocket.world import IDENTITY, SIZE, hats, looks, sample_identities

SECONDS = 90.0
PEOPLE = 10_000
BATCH, RATE = 512, 1.5e-3
FOLDER = "image-encoder"
EMBEDDING, PATCH, WIDTH, DEPTH, HEADS = 256, 8, 128, 4, 4


def new() -> CLIPVisionModelWithProjection:
    """An untrained one on the current device."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        projection_dim=EMBEDDING,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        image_size=SIZE,
        patch_size=PATCH,
    )
    encoder: Any = CLIPVisionModelWithProjection(config)
    return encoder.to(device())


def load(models: Path) -> CLIPVisionModelWithProjection:
    """The shipped one, frozen."""
    kept: Any = CLIPVisionModelWithProjection.from_pretrained(models / FOLDER, dtype=torch.float32)
    return kept.to(device()).eval().requires_grad_(False)


def embed(encoder: nn.Module, images: Tensor) -> Tensor:
    """Images (n, 3, 128, 128) in [0, 1] to image embeddings (n, 256).

    Normalised as CLIP's are: diffusers takes no other mean and deviation for an IP-Adapter's encoder.
    """
    with autocast():
        mean, std = (
            images.new_tensor(colours)[:, None, None]
            for colours in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        )
        return encoder(pixel_values=(images - mean) / std).image_embeds.float()


class Numbers(nn.Module):
    """From an embedding to the numbers of a render: (n, numbers), and logits for each attribute."""

    def __init__(self):
        super().__init__()
        circles = len(looks.CIRCULAR) + len(hats.CIRCULAR)
        count = len(IDENTITY) + len(looks.LOOK) + len(hats.HAT) + circles
        self.numbers = nn.Linear(EMBEDDING, count)
        self.there = nn.Linear(EMBEDDING, 2)


def make(said: Options) -> None:
    """Train (or go on training) and write the folder."""
    pictures = gallery.load(said, "all", people=PEOPLE)
    encoder, numbers = new(), Numbers().to(device())
    stage = Stage(
        "image_encoder",
        {"encoder": encoder, "numbers": numbers},
        said,
        rate=RATE,
        seconds=SECONDS,
        ema=0.998,
        compact=True,
        every=100,
    )
    size = 4 if said.smoke else BATCH
    people = sample_identities(len(pictures.portraits), gallery.seed(said), device())
    for _ in stage:
        rows = pictures.draw(size)
        seen = embed(encoder, softened(pictures.floats(rows)))
        who = people[rows // gallery.EACH]
        looked, hatted = pictures.looks[rows], pictures.hats[rows]
        seen_of_look = circled(looked, looks.LOOK, looks.CIRCULAR)
        seen_of_hat = circled(hatted, hats.HAT, hats.CIRCULAR)
        # NaN where nothing is to be seen
        wanted = torch.cat([2 * who - 1, seen_of_look, seen_of_hat], 1)
        known = ~wanted.isnan()
        error = ((numbers.numbers(seen) - wanted.nan_to_num()) ** 2 * known).sum() / known.sum()
        there = torch.stack([~looked.isnan().any(1), ~hatted.isnan().any(1)], 1).float()
        named = functional.binary_cross_entropy_with_logits(numbers.there(seen), there)
        stage.descend(error + 0.2 * named, numbers=error)
    stage.finish()
    if rank() == 0:
        save(said.models, encoder)


def save(models: Path, encoder: Any) -> None:
    """Write the encoder and its processor, as the published folders hold them."""
    folder = models / FOLDER
    folders.write_half(encoder, folder)
    folders.say_float32(folder / "config.json")
    size = {"height": SIZE, "width": SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size).save_pretrained(folder)
