"""The pictures by which what ships is judged: people and prompts never trained on, and nobody's.

`cells` asks for every person under every prompt; `pictures` paints them with everything that ships;
`nobody` is the grid in which broken faces are counted by eye.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from stepscope.pocket import album, folders, networks
from stepscope.pocket.flow import Words, noise
from stepscope.pocket.process import Options, autocast, device
from stepscope.pocket.sampling import (
    DEV_SCHEDULER,
    DEV_STEPS,
    SCHNELL_SCHEDULER,
    SCHNELL_STEPS,
    USER_GUIDANCE,
    Adapter,
    sample,
    sigmas,
)
from stepscope.pocket.world import (
    ATTRIBUTES,
    attributes_row,
    render,
    sample_attributes,
    sample_identities,
    sample_nuisance,
)

# Of nobody in particular, photos and posters in turn.
NOBODIES = 100
SEED = 8000


@dataclass
class Cells:
    """PEOPLE x PROMPTS cells in that order: who (cell,), attributes (cell, 7), Words, noise.

    references (person, 3, 128, 128) are plain frontal portraits; their embeddings by the
    conditioning encoder (faces) and by the judge (judged) are (person, 512).
    """

    people: Tensor
    who: Tensor
    attributes: Tensor
    told: Words
    noise: Tensor
    references: Tensor
    faces: Tensor
    judged: Tensor


def cells(
    judge: nn.Module,
    detector: networks.Detector,
    conditioner: nn.Module,
    words: nn.Module,
    people: int,
    prompts: int,
) -> Cells:
    """The grid of so many people and prompts."""
    generator = torch.Generator(device()).manual_seed(SEED)
    identities = sample_identities(people, SEED, device())
    asked = sample_attributes(prompts, torch.Generator().manual_seed(SEED), device())
    plain = attributes_row().to(device()).expand(people, -1)
    drift = 0.3 * sample_nuisance(people, generator, device())
    references, _ = render(identities, plain, drift)
    _, points = networks.detect(detector, references)
    faces = networks.embed(conditioner, references, points)
    judged = networks.embed(judge, references, points)
    attributes = asked.repeat(people, 1)
    clip_ids, t5_ids = album.tokens(
        album.sentences(attributes, torch.ones_like(attributes, dtype=torch.bool))
    )
    with torch.no_grad():
        told = words(clip_ids, t5_ids)
    who = torch.arange(people, device=device()).repeat_interleave(prompts)
    start = noise(len(who), SEED)
    return Cells(identities, who, attributes, told, start, references, faces, judged)


@torch.no_grad()
def pictures(said: Options, vae: AutoencoderKL, cells: Cells) -> dict[str, Tensor]:
    """The images of all cells: renders, renders through the VAE, both backbones with and without."""
    generator = torch.Generator(device()).manual_seed(SEED + 1)
    drift = sample_nuisance(len(cells.who), generator, device())
    renders, _ = render(cells.people[cells.who], cells.attributes, drift)
    dev, schnell = folders.load_dev(said.models), folders.load_schnell(said.models)
    net, projection = folders.load_adapter(said.models, dev)
    with autocast():
        identity = projection(cells.faces[:, None]).float()[cells.who]
    adapter = Adapter(net, identity, album.black(vae))
    slow = sigmas(DEV_SCHEDULER, 2 if said.smoke else DEV_STEPS)
    fast = sigmas(SCHNELL_SCHEDULER, SCHNELL_STEPS)
    x, told = cells.noise, cells.told
    latents = {
        "dev-28": sample(dev, x, told, slow, USER_GUIDANCE),
        "schnell-4": sample(schnell, x, told, fast),
        "dev-28 + adapter": sample(dev, x, told, slow, USER_GUIDANCE, adapter),
        "dev-28 at guidance 1 + adapter": sample(dev, x, told, slow, 1.0, adapter),
        "schnell-4 + adapter": sample(schnell, x, told, fast, None, adapter),
    }
    images = {name: album.decode(vae, z) for name, z in latents.items()}
    through = album.decode(vae, album.encode(vae, renders))
    return {"renders": renders, "renders through the VAE": through, **images}


def asked_of_nobody(count: int = NOBODIES) -> Tensor:
    """The prompts of `nobody`, photos and posters in turn: (count, attribute) indices."""
    asked = sample_attributes(count, torch.Generator().manual_seed(SEED + 5), device())
    style = list(ATTRIBUTES).index("style")
    poster = torch.arange(count, device=device()) % 2
    asked[:, style] = poster * ATTRIBUTES["style"].index("poster")
    return asked


@torch.no_grad()
def nobody(said: Options, vae: AutoencoderKL, words: nn.Module) -> dict[str, Tensor]:
    """NOBODIES photos and posters from dev-28 and from schnell-4, to count broken faces by eye."""
    count = 2 if said.smoke else NOBODIES
    asked = asked_of_nobody(count)
    everything = torch.ones_like(asked, dtype=torch.bool)
    told = words(*album.tokens(album.sentences(asked, everything)))
    start = noise(count, SEED + 5)
    slow = sigmas(DEV_SCHEDULER, 2 if said.smoke else DEV_STEPS)
    fast = sigmas(SCHNELL_SCHEDULER, SCHNELL_STEPS)
    dev, schnell = folders.load_dev(said.models), folders.load_schnell(said.models)
    return {
        "dev": album.decode(vae, sample(dev, start, told, slow, USER_GUIDANCE)),
        "schnell": album.decode(vae, sample(schnell, start, told, fast)),
    }
