"""The folders that ship, exactly as the published models lie on disk, written and read back.

Weights are half precision; configurations say float32, which is what a CPU should compute in.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxPipeline,
    FluxTransformer2DModel,
)
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from stepscope.pocket import flow, grammar, sampling, text
from stepscope.pocket.process import device
from stepscope.pocket.weights import load_half, save_half

DEV, SCHNELL, ADAPTER = "flux-dev", "flux-schnell", "infinite-you"
# What schnell shares with dev, as links: one copy of each ships.
SHARED = ("vae", "text_encoder", "text_encoder_2")
# diffusers' names of the resampler's weights, and InfiniteYou's.
PUBLISHED = (
    (r"layers\.(\d+)\.ln0\.", r"layers.\1.0.norm1."),
    (r"layers\.(\d+)\.ln1\.", r"layers.\1.0.norm2."),
    (r"layers\.(\d+)\.attn\.to_out\.0\.", r"layers.\1.0.to_out."),
    (r"layers\.(\d+)\.attn\.", r"layers.\1.0."),
    (r"layers\.(\d+)\.ff\.0\.", r"layers.\1.1.0."),
    (r"layers\.(\d+)\.ff\.1\.net\.0\.proj\.", r"layers.\1.1.1."),
    (r"layers\.(\d+)\.ff\.1\.net\.2\.", r"layers.\1.1.3."),
)


def save_base(checkpoints: Path, model: nn.Module, words: nn.Module) -> None:
    """Keep the base flow and its text encoders for guidance.py."""
    save_half(model, checkpoints / "base.safetensors")
    save_half(words, checkpoints / "text.safetensors")


def trained_base(checkpoints: Path) -> tuple[FluxTransformer2DModel, text.Text]:
    """What save_base kept, frozen."""
    path = checkpoints / "base.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m pocket.base` first")
    model = load_half(flow.transformer(guidance=False), path).train()
    return model, load_half(text.new(), checkpoints / "text.safetensors")


def fixed_guidance(dev: FluxTransformer2DModel, guidance: float) -> FluxTransformer2DModel:
    """Dev at one guidance as a model without the embedding, exactly: a constant joins a bias."""
    fixed = flow.transformer(guidance=False)
    kept = {k: v for k, v in dev.state_dict().items() if "guidance_embedder" not in k}
    fixed.load_state_dict(kept)
    embedding: Any = dev.time_text_embed
    scale = torch.full((1,), 1000 * guidance, device=device())
    with torch.no_grad():
        constant = embedding.guidance_embedder(embedding.time_proj(scale))[0]
        fixed.time_text_embed.timestep_embedder.linear_2.bias += constant
    return fixed


def save_dev(models: Path, model: FluxTransformer2DModel, words: text.Text) -> None:
    """Write flux-dev, all but its VAE, which is already there."""
    folder = models / DEV
    write_half(model, folder / "transformer")
    for name, encoder in (("text_encoder", words.clip), ("text_encoder_2", words.t5)):
        write_half(encoder, folder / name)
        say_float32(folder / name / "config.json")
    _save_index(folder, sampling.DEV_SCHEDULER, load_vae(models), words, model)


def save_schnell(models: Path, model: FluxTransformer2DModel) -> None:
    """Write flux-schnell: its transformer and scheduler, and links to dev for the rest."""
    folder = models / SCHNELL
    write_half(model, folder / "transformer")
    for name in SHARED:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..") / DEV / name, target_is_directory=True)
    _save_index(folder, sampling.SCHNELL_SCHEDULER, load_vae(models), load_text(models), model)


def save_adapter(models: Path, infusenet: nn.Module, projection: nn.Module) -> None:
    """Write infinite-you/InfuseNetModel and image_proj_model.bin."""
    write_half(infusenet, models / ADAPTER / "InfuseNetModel")
    published = published_projection(projection.state_dict())
    half = {k: v.detach().half().cpu() for k, v in published.items()}
    torch.save({"image_proj": half}, models / ADAPTER / "image_proj_model.bin")


def load_dev(models: Path, *, fast: bool = True) -> FluxTransformer2DModel:
    """Shipped dev, frozen. fast: compiled on CUDA."""
    return _fill(flow.transformer(guidance=True, fast=fast), models / DEV / "transformer")


def load_schnell(models: Path) -> FluxTransformer2DModel:
    """Shipped schnell, frozen."""
    return _fill(flow.transformer(guidance=False), models / SCHNELL / "transformer")


def load_text(models: Path) -> text.Text:
    """Shipped text encoders, frozen."""
    folder = models / DEV
    clip = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
    return text.Text(clip, t5).to(device()).requires_grad_(False)


def load_vae(models: Path) -> AutoencoderKL:
    """Shipped autoencoder, frozen."""
    vae: Any = AutoencoderKL.from_pretrained(models / DEV / "vae", dtype=torch.float32)
    return vae.to(device()).requires_grad_(False)


def load_adapter(
    models: Path, dev: FluxTransformer2DModel
) -> tuple[FluxControlNetModel, IPAdapterPlusImageProjection]:
    """Shipped InfuseNet and projection, frozen."""
    infusenet = _fill(flow.infusenet(dev), models / ADAPTER / "InfuseNetModel")
    projection = flow.resampler()
    kept = torch.load(models / ADAPTER / "image_proj_model.bin", weights_only=True)
    projection.load_state_dict(own_projection(kept["image_proj"]))
    return infusenet, projection.requires_grad_(False)


def published_projection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' resampler weights under InfiniteYou's names (keys and values in one matrix)."""
    state = dict(state)
    for name in [n for n in state if n.endswith("to_k.weight")]:
        both = state.pop(name), state.pop(name.replace("to_k", "to_v"))
        state[name.replace("to_k", "to_kv")] = torch.cat(both)
    return {_rename(name): weight for name, weight in state.items()}


def own_projection(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of published_projection."""
    state = {}
    for name in flow.resampler().state_dict():
        joint = re.sub(r"to_[kv]\.", "to_kv.", name)
        weight = published[_rename(joint)]
        half = {"to_k.weight": 0, "to_v.weight": 1}.get(name.split("attn.")[-1])
        state[name] = weight if half is None else weight.chunk(2)[half]
    return state


def _rename(name: str) -> str:
    for pattern, replacement in PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return name


def _fill(model: Any, folder: Path) -> Any:
    kept = type(model).from_pretrained(folder, dtype=torch.float32).state_dict()
    model.load_state_dict(kept)
    return model.requires_grad_(False)


def write_half(model: Any, folder: Path) -> None:
    """A model of diffusers or transformers in its folder, its weights in half precision."""
    kind = type(model)
    make = kind.from_config if hasattr(kind, "from_config") else kind
    half = make(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)


def say_float32(path: Path) -> None:
    """Have a transformers configuration ask for float32, which is what a CPU should compute in."""
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "dtype": "float32"}, indent=2, sort_keys=True) + "\n")


def _save_index(
    folder: Path, scheduler: dict[str, Any], vae: AutoencoderKL, words: text.Text, model: Any
) -> None:
    own: Any = FlowMatchEulerDiscreteScheduler(**scheduler)
    own.save_pretrained(folder / "scheduler")
    grammar.save_tokenizers(folder)
    tokenizers: list[Any] = [grammar.clip_tokenizer(), grammar.t5_tokenizer()]
    FluxPipeline(
        scheduler=own,
        vae=vae,
        text_encoder=words.clip,
        tokenizer=tokenizers[0],
        text_encoder_2=words.t5,
        tokenizer_2=tokenizers[1],
        transformer=model,
    ).save_config(folder)
