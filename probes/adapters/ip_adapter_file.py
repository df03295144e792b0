"""The file of an IP-Adapter: which kind it holds, for which backbone, and diffusers' loader for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file as load_weights

from stepscope.hooks.clock import denoiser_of
from stepscope.probes.weights import WeightsError, explained, file

WIDTHS = {768: "sd15", 2048: "sdxl"}
"""Width of the text that a published adapter's keys are made for, and the family that has it."""


@dataclass(frozen=True)
class Kind:
    """What a file holds.

    hidden: it reads the encoder's hidden states. face_id: it reads a face's embedding; both are a FaceID
    Plus. flux: it is FLUX's. width: of the tokens that its attentions read. embedding: numbers of a
    picture's token, or of a face, that its projection reads. picture: of a FaceID Plus, those of a token.
    """

    hidden: bool
    face_id: bool
    flux: bool
    width: int
    embedding: int
    picture: int = 0

    @property
    def plus_face(self) -> bool:
        """Whether it is a FaceID Plus."""
        return self.face_id and self.hidden


def read_kind(path: Path, place: str) -> Kind:
    """The kind of a file, by the names of its weights, as diffusers tells them apart.

    See diffusers' UNet2DConditionLoadersMixin._convert_ip_adapter_image_proj_to_diffusers. Raises
    WeightsError for a file that is none, or of a kind that is not known.
    """
    with explained(place, "adapter"):
        shapes = _shapes(path)
    projection, attention = shapes["image_proj"], shapes["ip_adapter"]
    if not projection or not attention:
        raise WeightsError(
            f"adapter {place!r} is no IP-Adapter: it has no weights below image_proj and ip_adapter"
        )
    flux = any(name.endswith(("to_k_ip.bias", "double_stream_k_proj.bias")) for name in attention)
    ends = ("to_k_ip.weight", "double_stream_k_proj.weight")
    keys = next((shape for name, shape in attention.items() if name.endswith(ends)), (0, 0))
    face_id = "proj.0.weight" in projection and "norm.weight" in projection
    face_id = face_id and "proj.3.weight" not in projection
    plain = "proj.weight" in projection
    first = ("proj_in.weight", "proj.weight", "proj.0.weight")
    read = next((projection[name][-1] for name in first if name in projection), 0)
    picture = projection.get("perceiver_resampler.proj_in.weight", (0,))[-1]
    hidden = picture > 0 or not (plain or face_id)
    return Kind(hidden, face_id, flux, keys[-1], read, picture)


def there(place: str) -> Path | None:
    """The file of weights if it is on this machine."""
    try:
        return file(place, "adapter", download=False)
    except WeightsError:
        return None


def load_file(pipe: Any, path: Path, kind: Kind) -> None:
    """Put the adapter into the pipeline. Raises WeightsError where it is another backbone's."""
    check_backbone(kind, denoiser_of(pipe), str(path))
    check_layers(path, denoiser_of(pipe), str(path))
    more = (
        {"image_encoder_pretrained_model_name_or_path": None}
        if kind.flux
        else {"image_encoder_folder": None}
    )
    with explained(str(path), "adapter"):
        try:
            pipe.load_ip_adapter(str(path.parent), subfolder="", weight_name=path.name, **more)
        except NotImplementedError as error:  # torch, of a parameter that no file had
            raise WeightsError(f"adapter {str(path)!r} lacks weights of its projection") from error


def check_backbone(kind: Kind, denoiser: Any, place: str) -> None:
    """Raise WeightsError for another family's, and where its tokens are not as wide as the text's."""
    config = denoiser.config
    if kind.flux != isinstance(denoiser, FluxTransformer2DModel):
        made_for = "FLUX" if kind.flux else "a U-Net"
        raise WeightsError(
            f"adapter {place!r} is made for {made_for}, and the backbone has a {type(denoiser).__name__}"
        )
    width = config.joint_attention_dim if kind.flux else config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    if kind.width != width:
        known = f" (of {WIDTHS[kind.width]})" if kind.width in WIDTHS else ""
        raise WeightsError(
            f"adapter {place!r} adds tokens of {kind.width} channels{known}, and the backbone's text "
            f"has {width}: it is another backbone's adapter"
        )


def check_layers(path: Path, denoiser: Any, place: str) -> None:
    """Raise WeightsError where a key or value of a cross-attention is missing, or of another shape.

    Named by their place among the attentions, as diffusers' UNet2DConditionLoadersMixin counts them; FLUX's
    by their block.
    """
    with explained(place, "adapter"):
        shapes = _shapes(path)["ip_adapter"]
    for name, wanted in _wanted(denoiser, shapes).items():
        if name not in shapes:
            raise WeightsError(
                f"adapter {place!r} lacks {name}: it is damaged, or another backbone's"
            )
        if shapes[name] != wanted:
            raise WeightsError(
                f"adapter {place!r}: {name} is {shapes[name]}, and fits the backbone as {wanted}: it is "
                "another backbone's adapter"
            )


def _wanted(denoiser: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of the keys and values of every attention of a denoiser that reads pictures, by name."""
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(denoiser, FluxTransformer2DModel):
        shape = denoiser.inner_dim, denoiser.config["joint_attention_dim"]
        own = any("double_stream" in name for name in shapes)  # as XLabs names them
        for i in range(denoiser.config["num_layers"]):
            name = f"{i}.processor.ip_adapter_double_stream_{{}}_proj" if own else f"{i}.to_{{}}_ip"
            found |= {f"{name.format(part)}.weight": shape for part in "kv"}
        return found
    attentions = [name for name in denoiser.attn_processors if "attn2" in name]
    for i, name in enumerate(attentions):
        attention: Any = denoiser.get_submodule(name.removesuffix(".processor"))
        shape = tuple(attention.to_k.weight.shape)
        found |= {f"{2 * i + 1}.to_{part}_ip.weight": shape for part in "kv"}
    return found


OWN_LORA = "faceid_0"
"""What diffusers' load_ip_adapter calls the LoRA that a FaceID file holds."""


def own_lora(denoiser: Any, path: Path) -> dict[str, torch.Tensor]:
    """The LoRA of a FaceID file, by the names of a U-Net's layers; empty where it holds none."""
    if path.suffix == ".safetensors":
        weights = load_weights(path)
        state = {
            part: {n.removeprefix(f"{part}."): w for n, w in weights.items() if n.startswith(part)}
            for part in ("image_proj", "ip_adapter")
        }
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    return denoiser._load_ip_adapter_loras([state]).get(0, {})


def _shapes(path: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the weights below `image_proj` and `ip_adapter`, by name."""
    found: dict[str, dict[str, tuple[int, ...]]] = {"image_proj": {}, "ip_adapter": {}}
    parts = {
        "image_proj": "image_proj",
        "ip_adapter_proj_model": "image_proj",
        "ip_adapter": "ip_adapter",
        "double_blocks": "ip_adapter",
    }
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                part, _, rest = name.partition(".")
                if part in parts:
                    found[parts[part]][rest] = tuple(opened.get_slice(name).get_shape())
        return found
    state = torch.load(path, map_location="meta", weights_only=True)
    for part, inside in (state if isinstance(state, Mapping) else {}).items():
        if part in parts and isinstance(inside, Mapping):
            found[parts[part]] |= {name: tuple(value.shape) for name, value in inside.items()}
    return found
