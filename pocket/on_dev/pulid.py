"""Train PuLID on frozen dev: `python -m pocket.make --only pulid`.

Probes' own networks of the published form (probes/adapters/pulid_network.py), small: IDFormer reads the
recogniser's embedding, not normalised, and EVA-CLIP's outputs; its tokens are attended to after each second
double and each fourth single block.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from stepscope.pocket import album
from stepscope.pocket.flow import FACE_NUMBERS, TEXT_WIDTH, WIDTH, velocity
from stepscope.pocket.on_dev import eva
from stepscope.pocket.on_dev.lesson import Pupil, dev_alone, learn
from stepscope.pocket.process import Options, autocast, device, rank
from stepscope.pocket.references import photos
from stepscope.pocket.weights import cast_state
from stepscope.probes.adapters.pulid_injection import places_of
from stepscope.probes.adapters.pulid_network import Pulid, load_pulid
from stepscope.probes.adapters.pulid_sizes import SCALES, PulidSizes

SECONDS = 200.0
FILE = Path("pulid/pulid_flux.safetensors")
SIZES = PulidSizes(
    dim=64,
    depth=SCALES,
    heads=1,
    inner=128,
    queries=8,
    width=TEXT_WIDTH,
    face_tokens=4,
    face=FACE_NUMBERS + eva.OUTPUT,
    mapped=128,
    vit=eva.SIZES["width"],
    vit_mapped=64,
    modules=4,
    image=WIDTH,
    image_heads=1,
    numbers=0,
)


def make(said: Options) -> None:
    """Train (or go on training) and write PuLID's file."""
    dev = dev_alone(said)
    network = new()
    if said.onward:
        network.load_state_dict(load_pulid(said.models / FILE, torch.float32).state_dict())
    shelf, seen = album.load(said), photos(said, album.people(said))
    output, hidden = eva.read(eva.load(said.models), seen.images, seen.keypoints)

    def identity(rows: Tensor) -> Tensor:
        which = seen.of(rows)
        face = torch.cat([seen.raw[which], output[which]], 1)
        with autocast():
            return network.pulid_encoder(face, hidden[which].float()).float()

    def with_pulid(x: Tensor, sigma: Tensor, told: Any, guidance: Tensor, tokens: Tensor) -> Tensor:
        network.identity = tokens
        return velocity(dev, x, sigma, told, guidance)

    attach(dev, network)
    pupil = Pupil(
        "pulid",
        {"network": network},
        shelf,
        identity,
        with_pulid,
    )
    learn(said, pupil, SECONDS)
    if rank() == 0:
        path = said.models / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(cast_state(network.state_dict(), torch.float16), path)


def new() -> Pulid:
    """Untrained networks on the current device, which add nothing yet."""
    network = Pulid(SIZES)
    encoder = network.pulid_encoder
    nn.init.normal_(encoder.latents, std=SIZES.dim**-0.5)
    nn.init.normal_(encoder.proj_out, std=SIZES.dim**-0.5)
    for attention in network.pulid_ca:
        out: Any = attention.to_out
        nn.init.zeros_(out.weight)
    return network.to(device())


def attach(dev: FluxTransformer2DModel, network: Pulid) -> None:
    """Add the network's `identity` at PuLID's places in each pass of dev, with gradients."""
    for (_, following), attention in zip(places_of(dev), network.pulid_ca, strict=True):

        def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], own: Any = attention):
            image = args[0] if args else kwargs["hidden_states"]
            image = image + own(network.identity, image)
            return (
                ((image, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": image})
            )

        following.register_forward_pre_hook(add, with_kwargs=True)
