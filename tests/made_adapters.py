"""Small files of IP-Adapters in layouts of which no reference is published: FaceID, and XLabs' for FLUX."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import save_file

from stepscope.probes.weights import meta
from tests.models import INFINITE_YOU, REFERENCE

IP_ADAPTER = REFERENCE / "ip-adapter"
RANK = 2


def face_id_file(folder: Path, *, with_lora: bool) -> Path:
    """FaceID for the reference's SD 1.5: the plain file's attentions, other projections, and its LoRA.

    Names as in diffusers' UNet2DConditionLoadersMixin, `_convert_ip_adapter_image_proj_to_diffusers` and
    `_load_ip_adapter_loras`.
    """
    plain = torch.load(
        IP_ADAPTER / "adapters" / "ip-adapter_sd15.bin", map_location="cpu", weights_only=True
    )
    unet: Any = meta(UNet2DConditionModel, IP_ADAPTER / "sd15" / "unet")
    width, draw = unet.config.cross_attention_dim, torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) / shape[-1] ** 0.5

    projection = {
        "proj.0.weight": random(1024, 512), "proj.0.bias": torch.zeros(1024),
        "proj.2.weight": random(4 * width, 1024), "proj.2.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width), "norm.bias": torch.zeros(width),
    }  # fmt: skip
    attention = dict(plain["ip_adapter"])
    for place, name in enumerate(unet.attn_processors if with_lora else ()):
        module = unet.get_submodule(name.removesuffix(".processor"))
        layers = {
            "to_q": module.to_q,
            "to_k": module.to_k,
            "to_v": module.to_v,
            "to_out": module.to_out[0],
        }
        for part, layer in layers.items():
            outside, inside = layer.weight.shape
            attention[f"{place}.{part}_lora.down.weight"] = random(RANK, inside)
            attention[f"{place}.{part}_lora.up.weight"] = random(outside, RANK)
    path = folder / f"face_id_{with_lora}.bin"
    torch.save({"image_proj": projection, "ip_adapter": attention}, path)
    return path


CLIP_WIDTH = 28
"""Of the hidden states of the reference's CLIP."""


def _plain() -> dict[str, torch.Tensor]:
    """The attentions of the reference's plain file for SD 1.5."""
    path = IP_ADAPTER / "adapters" / "ip-adapter_sd15.bin"
    return torch.load(path, map_location="cpu", weights_only=True)["ip_adapter"]


def full_face_file(folder: Path) -> Path:
    """A full-face IP-Adapter for the reference's SD 1.5: its authors' MLPProjModel, of every patch."""
    draw = torch.Generator().manual_seed(0)
    attention = _plain()
    width = next(v for k, v in attention.items() if k.endswith("to_k_ip.weight")).shape[1]
    projection = {
        "proj.0.weight": torch.randn(CLIP_WIDTH, CLIP_WIDTH, generator=draw) / CLIP_WIDTH**0.5,
        "proj.0.bias": torch.zeros(CLIP_WIDTH),
        "proj.2.weight": torch.randn(width, CLIP_WIDTH, generator=draw) / CLIP_WIDTH**0.5,
        "proj.2.bias": torch.zeros(width),
        "proj.3.weight": torch.ones(width),
        "proj.3.bias": torch.zeros(width),
    }
    torch.save({"image_proj": projection, "ip_adapter": attention}, folder / "full_face.bin")
    return folder / "full_face.bin"


def face_id_plus_file(folder: Path) -> Path:
    """A FaceID Plus for the reference's SD 1.5: its authors' ProjPlusModel, four layers deep.

    Either version: they differ in how the projection's two parts are joined, and not in the file.
    """
    draw, attention, inner = torch.Generator().manual_seed(0), _plain(), 64
    width = next(v for k, v in attention.items() if k.endswith("to_k_ip.weight")).shape[1]
    found: dict[str, torch.Tensor] = {}

    def linear(name: str, outside: int, inside: int, *, bias: bool) -> None:
        found[f"{name}.weight"] = torch.randn(outside, inside, generator=draw) / inside**0.5
        if bias:
            found[f"{name}.bias"] = 0.1 * torch.randn(outside, generator=draw)

    def norm(name: str) -> None:
        found[f"{name}.weight"] = 1 + 0.1 * torch.randn(width, generator=draw)
        found[f"{name}.bias"] = 0.1 * torch.randn(width, generator=draw)

    linear("proj.0", 1024, 512, bias=True)
    linear("proj.2", 4 * width, 1024, bias=True)
    norm("norm")
    start = "perceiver_resampler"
    linear(f"{start}.proj_in", width, CLIP_WIDTH, bias=True)
    linear(f"{start}.proj_out", width, width, bias=True)
    norm(f"{start}.norm_out")
    for layer in range(4):
        at = f"{start}.layers.{layer}"
        for name in ("0.norm1", "0.norm2", "1.0"):
            norm(f"{at}.{name}")
        linear(f"{at}.0.to_q", inner, width, bias=False)
        linear(f"{at}.0.to_kv", 2 * inner, width, bias=False)
        linear(f"{at}.0.to_out", width, inner, bias=False)
        linear(f"{at}.1.1", 4 * width, width, bias=False)
        linear(f"{at}.1.3", width, 4 * width, bias=False)
    torch.save({"image_proj": found, "ip_adapter": attention}, folder / "face_id_plus.bin")
    return folder / "face_id_plus.bin"


def plus_face(folder: Path, seed: int) -> Path:
    """What a FaceID Plus reads of a face, at random: its embedding, and CLIP's hidden states."""
    draw, path = np.random.default_rng(seed), folder / f"plus_{seed}.npz"
    made, nothing = draw.normal(size=(2, 1, 9, CLIP_WIDTH)).astype(np.float32)
    embedding = draw.normal(size=512).astype(np.float32)
    np.savez(path, face_embedding=embedding, image_embeds=made, negative_image_embeds=nothing)
    return path


def flux_file(folder: Path) -> Path:
    """An IP-Adapter for the reference's FLUX.1-dev, named as XLabs names it (FluxIPAdapterMixin)."""
    model: Any = meta(FluxTransformer2DModel, INFINITE_YOU / "flux-dev" / "transformer")
    width, text, draw = model.inner_dim, model.config.joint_attention_dim, torch.Generator()
    draw.manual_seed(0)
    found = {
        "ip_adapter_proj_model.proj.weight": torch.randn(4 * text, 36, generator=draw) / 6,
        "ip_adapter_proj_model.proj.bias": torch.zeros(4 * text),
        "ip_adapter_proj_model.norm.weight": torch.ones(text),
        "ip_adapter_proj_model.norm.bias": torch.zeros(text),
    }
    for block in range(model.config.num_layers):
        for part in "kv":
            key = f"double_blocks.{block}.processor.ip_adapter_double_stream_{part}_proj"
            found[f"{key}.weight"] = torch.randn(width, text, generator=draw) / text**0.5
            found[f"{key}.bias"] = torch.zeros(width)
    save_file(found, folder / "flux_ip.safetensors")
    return folder / "flux_ip.safetensors"
