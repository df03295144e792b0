"""What a portrait is made of: identity numbers, prompt attributes, nuisance; and how to draw them.

An identity is never named in a prompt; a prompt fixes the attributes; nuisance is what is left.
"""

import torch
from torch import Tensor

SIZE = 128

IDENTITY: tuple[str, ...] = (
    "skin",
    "hair_colour",
    "iris",
    "width",
    "jaw",
    "chin",
    "eye_gap",
    "eye_size",
    "eye_tilt",
    "brow_thickness",
    "brow_tilt",
    "nose_length",
    "nose_width",
    "mouth_width",
    "lips",
    "ears",
    "hair_length",
    "hair_volume",
    "fringe",
    "parting",
    "beard",
    "mole",
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shot": ("close-up", "portrait", "half-body"),
    "scene": ("studio", "beach", "office", "forest", "night", "mountains"),
    "clothing": ("suit", "t-shirt", "hoodie", "sweater", "jacket"),
    "expression": ("serious", "smiling", "surprised"),
    "accessory": ("none", "glasses", "beanie", "headphones"),
    "style": ("photo", "sketch", "poster"),
    "colour": ("red", "blue", "green", "yellow", "white", "black", "purple"),
}

NUISANCE: tuple[str, ...] = (
    "shift_x",
    "shift_y",
    "zoom",
    "roll",
    "yaw",
    "light_x",
    "light_y",
    "exposure",
    "backdrop_x",
    "backdrop_y",
    "backdrop_hue",
    "trim",
)


def sample_identities(n: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """n people, (n, identity) uniform in [0, 1]; the same for a seed on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, len(IDENTITY), generator=generator).to(device)


def sample_attributes(
    n: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    photo_share: float | None = None,
) -> Tensor:
    """n prompts' attributes, (n, attribute) indices; drawn on the generator's device.

    `photo_share` turns that share of the rows into photos, whatever style they had.
    """
    where = generator.device
    columns = [
        torch.randint(len(values), (n,), generator=generator, device=where)
        for values in ATTRIBUTES.values()
    ]
    rows = torch.stack(columns, 1)
    if photo_share is not None:
        style = list(ATTRIBUTES).index("style")
        photo = torch.rand(n, generator=generator, device=where) < photo_share
        rows[photo, style] = ATTRIBUTES["style"].index("photo")
    return rows.to(device)


def sample_nuisance(
    n: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """n poses, lights and cameras, (n, nuisance) uniform in [-1, 1]."""
    where = generator.device
    drawn = torch.rand(n, len(NUISANCE), generator=generator, device=where)
    return (drawn * 2 - 1).to(device)


def attributes_row(**named: str) -> Tensor:
    """One row of attribute indices from names, the first value where one is not named.

    >>> attributes_row(scene="beach", style="poster")
    """
    for key, value in named.items():
        if key not in ATTRIBUTES or value not in ATTRIBUTES[key]:
            raise ValueError(f"{key}={value!r} is not in the world; it has {ATTRIBUTES}")
    return torch.tensor([v.index(named.get(k, v[0])) for k, v in ATTRIBUTES.items()])
