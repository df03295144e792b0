"""Draws pocket/pictures/looks/NN.png and hats/NN.png, what the adapters of style and object are given.

    python -m pocket.pictures

Plain portraits of people, looks and hats that nothing was trained on, one of each.
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stepscope.pocket.process import device
from stepscope.pocket.world import (
    attributes_row,
    render,
    sample_identities,
    sample_nuisance,
)
from stepscope.pocket.world.hats import sample_hats
from stepscope.pocket.world.looks import sample_looks

PICTURES = Path(__file__).parent / "pictures"
COUNT, SEED = 8, 9700


def painted() -> dict[str, Tensor]:
    """Images (COUNT, 3, 128, 128) in [0, 1] by the name of their folder."""
    generator = torch.Generator().manual_seed(SEED)
    designs = {"looks": sample_looks(COUNT, generator), "hats": sample_hats(COUNT, generator)}
    people = sample_identities(2 * COUNT, SEED).split(COUNT)
    plain = attributes_row(shot="portrait", clothing="t-shirt").expand(COUNT, -1)
    found = {}
    for (name, design), who in zip(designs.items(), people, strict=True):
        drift = 0.3 * sample_nuisance(COUNT, generator)
        given = [part.to(device()) for part in (who, plain, drift)]
        found[name], _ = render(*given, **{name: design.to(device())})
    return found


def main(folder: Path = PICTURES) -> None:
    for name, images in painted().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for i, picture in enumerate(pixels):
            Image.fromarray(picture).save(folder / name / f"{i:02d}.png", optimize=True)


if __name__ == "__main__":
    main()
