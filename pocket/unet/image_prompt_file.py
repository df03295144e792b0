"""The IP-Adapters on the U-Nets: which there are, and their files in the published form."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepscope.pocket.unet import image_encoder

TOKENS, FACE_TOKENS = 4, 2
FACE = 512


@dataclass(frozen=True)
class Early:
    """Lessons in the noise, where Stable Diffusion's schedule leaves a picture's mean colour to be seen.

    A run starts from noise that has none, and the base, which trusts it, paints in grey: an adapter that
    only saw noised pictures never had to overrule it.

    share: of the lessons at times from EARLY on. faint: down to this ratio of signal to noise, an error of
    the picture weighs as much as elsewhere. offset: deviation of a constant that is added to the noise of
    each channel (https://www.crosslabs.org/blog/diffusion-with-offset-noise). alone: the share of rows that
    are noise alone, of which the critic sees the estimate, at times within `start`.
    """

    share: float = 0.6
    faint: float = 0.01
    offset: float = 0.12
    alone: float = 0.25
    start: tuple[int, int] = (880, 980)


@dataclass(frozen=True)
class Prompt:
    """One adapter: the backbone that it learns on, what a pair of its pictures shares, what it reads.

    early: how a palette is learnt, which is decided in the noise; None for the rest.
    """

    name: str
    backbone: str
    shares: str
    reads_faces: bool = False
    early: "Early | None" = None

    def file(self, models: Path) -> Path:
        """Where it ships, under the published file's form of name."""
        return models / "ip-adapter" / f"{self.name}_{self.backbone}.safetensors"


PROMPTS = {
    one.name: one
    for one in (
        Prompt("style", "sdxl", "looks", early=Early()),
        Prompt("object", "sd15", "hats"),
        Prompt("face_id", "sdxl", "faces", reads_faces=True),
    )
}


def start(unet: Any, prompt: Prompt) -> dict[str, dict[str, Tensor]]:
    """An untrained adapter: the image attends as text does, its values silent."""
    width = unet.config.cross_attention_dim
    numbers = FACE if prompt.reads_faces else image_encoder.EMBEDDING
    attention: dict[str, Tensor] = {}
    for number, name in crossed(unet):
        of = unet.get_submodule(name.removesuffix(".processor"))
        attention[f"{number}.to_k_ip.weight"] = of.to_k.weight.detach().clone()
        attention[f"{number}.to_v_ip.weight"] = torch.zeros_like(of.to_v.weight)
    return {"image_proj": projection(prompt, numbers, width), "ip_adapter": attention}


def projection(prompt: Prompt, numbers: int, width: int) -> dict[str, Tensor]:
    """The published projection's weights: one linear layer, or FaceID's two."""
    norm = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    if not prompt.reads_faces:
        layer = nn.Linear(numbers, TOKENS * width)
        return {"proj.weight": layer.weight.data, "proj.bias": layer.bias.data, **norm}
    first, second = nn.Linear(numbers, numbers), nn.Linear(numbers, FACE_TOKENS * width)
    nn.init.normal_(first.weight)  # a unit vector's numbers are about 1 / sqrt(512)
    both = (("proj.0", first), ("proj.2", second))
    return {
        f"{name}.{key}": value.data
        for name, layer in both
        for key, value in layer.named_parameters()
    } | norm


def crossed(unet: Any) -> list[tuple[int, str]]:
    """(number in a published file, processor's name) of each cross attention."""
    names = [name for name in unet.attn_processors if "attn2" in name]
    return [(2 * i + 1, name) for i, name in enumerate(names)]


def parts(unet: Any) -> nn.ModuleDict:
    """The adapter's own modules: projection, and keys and values of each cross attention."""
    found: dict[str, nn.Module] = {"projection": unet.encoder_hid_proj}
    for number, name in crossed(unet):
        found[str(number)] = unet.attn_processors[name]
    return nn.ModuleDict(found)


def write(unet: Any, path: Path, prompt: Prompt) -> None:
    """One file in the published form: image_proj.*, ip_adapter.N.to_k_ip.weight, ..."""
    layers = unet.encoder_hid_proj.image_projection_layers[0]
    state = published(layers.state_dict(), prompt)
    for number, name in crossed(unet):
        processor = unet.attn_processors[name]
        state[f"ip_adapter.{number}.to_k_ip.weight"] = processor.to_k_ip[0].weight
        state[f"ip_adapter.{number}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().cpu().contiguous() for k, v in state.items()}, path)


PUBLISHED = (
    ("image_embeds.", "proj."),
    ("ff.net.0.proj.", "proj.0."),
    ("ff.net.2.", "proj.2."),
)


def published(state: Mapping[str, Tensor], prompt: Prompt) -> dict[str, Tensor]:
    """diffusers' names of a projection's weights to the published ones."""
    found = {}
    for name, weight in state.items():
        for ours, theirs in PUBLISHED:
            name = name.replace(ours, theirs) if name.startswith(ours) else name
        found[f"image_proj.{name}"] = weight
    return found


def read(path: Path) -> dict[str, dict[str, Tensor]]:
    """A shipped file as diffusers' loader wants it."""
    kept = load_file(path)
    return {
        part: {k.removeprefix(f"{part}."): v.float() for k, v in kept.items() if k.startswith(part)}
        for part in ("image_proj", "ip_adapter")
    }
