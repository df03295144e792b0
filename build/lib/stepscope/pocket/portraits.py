"""Draws pocket/portraits/NN_K.png: identity NN, render K; render 0 is the plain frontal photo.

python -m pocket.portraits
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stepscope.pocket.crowd import SEEDS
from stepscope.pocket.process import device
from stepscope.pocket.world import (
    NUISANCE,
    attributes_row,
    render,
    sample_identities,
    sample_nuisance,
)

PORTRAITS = Path(__file__).parent / "portraits"
PEOPLE = 24
# What renders 1 to 3 of a person show: other scenes, clothes and moods, still photos.
OTHERS = (
    {"shot": "portrait", "scene": "beach", "clothing": "hoodie", "expression": "smiling"},
    {"shot": "close-up", "scene": "office", "clothing": "suit", "accessory": "glasses"},
    {"shot": "half-body", "scene": "forest", "clothing": "sweater", "expression": "surprised"},
)
COLOURS = ("yellow", "black", "red")


def sittings() -> tuple[Tensor, Tensor, Tensor]:
    """Identity, attributes and nuisance of all portraits, four rows a person."""
    people = sample_identities(PEOPLE, SEEDS["portraits"])
    plain = attributes_row(shot="portrait", clothing="t-shirt", colour="white")
    others = [attributes_row(colour=c, **o) for c, o in zip(COLOURS, OTHERS, strict=True)]
    attributes = torch.stack([plain, *others]).repeat(PEOPLE, 1)
    generator = torch.Generator().manual_seed(SEEDS["portraits"])
    nuisance = sample_nuisance(4 * PEOPLE, generator)
    # The plain one looks straight ahead.
    frontal = [NUISANCE.index(name) for name in ("roll", "yaw", "shift_x", "shift_y")]
    nuisance[::4, frontal] = 0
    return people.repeat_interleave(4, 0), attributes, nuisance


def main(folder: Path = PORTRAITS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images, _ = render(*(t.to(device()) for t in sittings()))
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{i // 4:02d}_{i % 4}.png", optimize=True)


if __name__ == "__main__":
    main()
