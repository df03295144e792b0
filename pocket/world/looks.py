"""Looks: what a prompt never names about how a picture is made. Palette, line and texture, all continuous.

A look stands in the place of the styles that a prompt names (styles.py), on a picture painted as a photo.
"""

import math

import torch
from torch import Tensor

from stepscope.pocket.world.palette import hsv, luminance
from stepscope.pocket.world.styles import outlines

LOOK: tuple[str, ...] = (
    "shadow_hue",
    "light_hue",
    "tint",
    "contrast",
    "line",
    "line_light",
    "hatching",
    "hatching_angle",
    "hatching_pitch",
    "grain",
)
CIRCULAR: tuple[str, ...] = ("shadow_hue", "light_hue", "hatching_angle")
"""Numbers whose ends meet: 0 and 1 look the same."""


def sample_looks(n: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """n looks, (n, look) uniform in [0, 1]; drawn on the generator's device."""
    return torch.rand(n, len(LOOK), generator=generator, device=generator.device).to(device)


def restyle(image: Tensor, look: Tensor) -> Tensor:
    """Pictures (n, 3, h, w) in [0, 1] as the looks (n, look) in [0, 1] would have them."""
    chosen = {name: look[:, i, None, None] for i, name in enumerate(LOOK)}
    wide = {name: value[:, None] for name, value in chosen.items()}
    tone = luminance(image)
    tone = (0.5 + (tone - 0.5) * (0.7 + 0.8 * wide["contrast"])).clamp(0, 1)
    dark, light = hsv(chosen["shadow_hue"], 0.75, 0.32), hsv(chosen["light_hue"], 0.45, 1.0)
    duotone = torch.lerp(dark, light, tone)
    colours = (image + (tone - luminance(image))).clamp(0, 1)
    styled = torch.lerp(colours, duotone, 0.25 + 0.75 * wide["tint"])
    styled = styled * (1 - 0.45 * wide["hatching"] * hatches(tone, chosen))
    line = (outlines(image) * 2.2 - 0.12).clamp(0, 1) * wide["line"]
    styled = torch.lerp(styled, wide["line_light"].expand_as(styled), line)
    return (styled + 0.11 * wide["grain"] * speckles(styled)).clamp(0, 1)


def hatches(tone: Tensor, chosen: dict[str, Tensor]) -> Tensor:
    """Parallel strokes, wider where the tone is darker: (n, 1, h, w) in [0, 1]."""
    size = tone.shape[-1]
    edge = torch.linspace(-1, 1, size, device=tone.device)
    angle = math.pi * chosen["hatching_angle"]
    across = angle.cos() * edge[None, None, :] + angle.sin() * edge[None, :, None]
    pitch = 0.10 + 0.16 * chosen["hatching_pitch"]
    wave = 0.5 + 0.5 * torch.cos(2 * math.pi * across / pitch)
    return ((wave[:, None] - tone) * 3 + 0.5).clamp(0, 1)


def speckles(image: Tensor) -> Tensor:
    """The same blotches on every picture, about 4 pixels wide: (1, 1, h, w) in [-1, 1]."""
    size = image.shape[-1]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, size // 4, size // 4, generator=generator).to(image.device) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)
