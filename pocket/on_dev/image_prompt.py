"""Train an IP-Adapter of people on frozen dev: `python -m pocket.make --only face_prompt`.

It reads the image encoder's embedding of a plain photo, as FLUX's IP-Adapters read CLIP's: four
tokens, which the image tokens of double blocks attend to.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import ImageProjection
from diffusers.models.transformers.transformer_flux import (
    FluxAttnProcessor,
    FluxIPAdapterAttnProcessor,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepscope.pocket import album
from stepscope.pocket.flow import TEXT_WIDTH, WIDTH, velocity
from stepscope.pocket.on_dev.lesson import Pupil, dev_alone, learn
from stepscope.pocket.process import Options, autocast, device, rank
from stepscope.pocket.references import photos
from stepscope.pocket.unet.image_encoder import EMBEDDING

SECONDS = 150.0
TOKENS = 4
FILE = Path("ip-adapter/face_dev.safetensors")


def make(said: Options) -> None:
    """Train (or go on training) and write the adapter's file."""
    dev = dev_alone(said)
    projection = new()
    attentions = attached(dev)
    if said.onward:
        fill(load_file(said.models / FILE, device=str(device())), projection, attentions)
    shelf, seen = album.load(said), photos(said, album.people(said))

    def identity(rows: Tensor) -> Tensor:
        with autocast():
            return projection(seen.pictures[seen.of(rows)]).float()

    pupil = Pupil(
        "face_prompt",
        {"projection": projection, "attentions": attentions},
        shelf,
        identity,
        lambda x, sigma, told, guidance, image: velocity(
            dev, x, sigma, told, guidance, image=image
        ),
    )
    learn(said, pupil, SECONDS)
    if rank() == 0:
        write(said.models / FILE, projection, attentions)


def new() -> ImageProjection:
    """An untrained projection on the current device."""
    return ImageProjection(EMBEDDING, TEXT_WIDTH, TOKENS).to(device())


def attached(dev: FluxTransformer2DModel) -> nn.ModuleList:
    """The processors that read pictures, one for each double block, silent at first; dev holds them."""
    processors = {}
    for name in dev.attn_processors:
        if name.startswith("single"):
            processors[name] = FluxAttnProcessor()
            continue
        own = FluxIPAdapterAttnProcessor(WIDTH, TEXT_WIDTH, num_tokens=(TOKENS,)).to(device())
        for parameter in own.to_v_ip.parameters():
            nn.init.zeros_(parameter)
        processors[name] = own
    dev.set_attn_processor(dict(processors))  # which is emptied
    return nn.ModuleList(p for p in processors.values() if isinstance(p, nn.Module))


def published(projection: nn.Module, attentions: nn.ModuleList) -> dict[str, Tensor]:
    """The weights under the published names of FLUX's: image_proj.*, ip_adapter.N.to_k_ip.weight, ..."""
    state = {
        f"image_proj.{name.replace('image_embeds', 'proj')}": weight
        for name, weight in projection.state_dict().items()
    }
    for number, one in enumerate(attentions):
        for name, weight in one.state_dict().items():
            state[f"ip_adapter.{number}.{name.replace('_ip.0.', '_ip.')}"] = weight
    return state


@torch.no_grad()
def fill(kept: Mapping[str, Tensor], projection: nn.Module, attentions: nn.ModuleList) -> None:
    """Put a file's weights into both."""
    for name, weight in published(projection, attentions).items():
        weight.copy_(kept[name])


def write(path: Path, projection: nn.Module, attentions: nn.ModuleList) -> None:
    """One file, in half precision."""
    state = published(projection, attentions)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().cpu().contiguous() for k, v in state.items()}, path)
