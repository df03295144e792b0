"""The words of a tiny paper of picture adapters, on random models of the reference and pictures made up."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.adapter_words import IP_ADAPTER
from tests.shell import Words, listed

SDXL, SD15 = "ip-adapter_sdxl.bin", "ip-adapter-plus_sd15.bin"
"""The adapter of styles on SDXL, and that of objects on SD 1.5."""

FEW = ("every=1", "prompts=[a man]", "parts=[first steps,all but one step]")
"""Of a causal study, what is made quickly."""


def image_encoder(folder: Path) -> Path:
    """A random CLIP whose projection and tokens are as wide as the reference's adapters read."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=28,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=224,
        patch_size=112,
        projection_dim=36,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def pictures(folder: Path, count: int) -> Path:
    """Stripes of different widths and colours."""
    folder.mkdir()
    y, x = np.mgrid[:96, :96] / 96
    for k in range(count):
        waves = [np.sin((3 + k) * (a * x + b * y) + k) for a, b in ((6, 1), (2, 5), (4, 4))]
        values = (127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)
        Image.fromarray(values).save(folder / f"picture{k}.png")
    return folder


def tiny_overrides(base: str, adapter: str, encoder: Path) -> str:
    """`study.NAME.overrides` of runs of the reference's Stable Diffusion."""
    words = [
        "adapter=ip_adapter",
        f"backbone.path={IP_ADAPTER / base}",
        "backbone.dtype=float32",
        f"adapter.path={IP_ADAPTER / 'adapters' / adapter}",
        f"adapter.encoder={encoder}",
        "height=64",
        "width=64",
        "device=cpu",
    ]
    return listed(*words)


def tiny_paper(
    folder: Path,
    networks: Mapping[str, Path | int],
    *,
    count: int = 3,
    steps: Sequence[int] = (2, 4),
) -> Words:
    """The two experiments, of `count` pictures each. networks: keys of `networks`, by name."""
    encoder = image_encoder(folder / "encoder")
    many = ",".join(map(str, steps))
    return [
        f"out={folder / 'out'}",
        f"models.pictures.styles={pictures(folder / 'styles', count)}",
        f"models.pictures.objects={pictures(folder / 'objects', count)}",
        f"study.style_adapter.overrides={tiny_overrides('sdxl', SDXL, encoder)}",
        f"study.object_adapter.overrides={tiny_overrides('sd15', SD15, encoder)}",
        f"study.style_adapter.lines=['backbone=sdxl steps={many} \"prompts=[a man]\"']",
        f"study.object_adapter.lines=['backbone=sd15 steps={many} \"prompts=[a man]\"']",
        *(f"causal.{name}.{word}" for name in ("style_window", "object_window") for word in FEW),
        *(f"networks.{word}={value}" for word, value in networks.items()),
    ]
