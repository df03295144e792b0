"""Small files of IP-Adapters in layouts of which no reference is published: FaceID, and XLabs' for FLUX."""

from pathlib import Path
from typing import Any

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
