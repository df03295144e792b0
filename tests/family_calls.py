"""A call of each pipeline class of the families of tests/family_models.py, as small as it can be."""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import torch
from PIL import Image

from stepscope.hooks.families import Family
from stepscope.hooks.families.chroma import CHROMA
from stepscope.hooks.families.flux2 import FLUX2
from stepscope.hooks.families.qwen import QWEN_IMAGE
from stepscope.hooks.families.sd3 import SD3
from stepscope.hooks.families.z_image import Z_IMAGE
from tests import family_models
from tests.cases import NEGATIVE, PROMPT
from tests.every_pipeline_calls import noise

FAMILIES: dict[str, tuple[Family, Callable[..., Any]]] = {
    "sd3": (SD3, family_models.sd3),
    "chroma": (CHROMA, family_models.chroma),
    "qwen": (QWEN_IMAGE, family_models.qwen),
    "flux2": (FLUX2, family_models.flux2),
    "z_image": (Z_IMAGE, family_models.z_image),
}
CALLED = {kind: make for family, make in FAMILIES.values() for kind in family.pipelines}
"""Pipeline class -> what makes one."""


@cache
def pipeline(kind: str) -> Any:
    return CALLED[kind](kind)


def picture(side: int = 1) -> Image.Image:
    values = (noise(32 * side, 48 * side, 3, seed=6) * 255).byte()
    return Image.fromarray(values.numpy())


def embeds(rows: int = 1, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 7, family_models.WIDTH, generator=generator).expand(rows, -1, -1)


def called(kind: str, **given: Any) -> Any:
    """What the class's pipeline returns of one prompt in three steps, guided where it can be."""
    asked = inspect.signature(getattr(diffusers, kind).__call__).parameters
    arguments: dict[str, Any] = {
        "prompt": PROMPT,
        "negative_prompt": NEGATIVE,
        "height": 32,
        "width": 48,
        "num_inference_steps": 3,
        "max_sequence_length": 16,
        "text_encoder_out_layers": (1,),
        "guidance_scale": None if kind.startswith("QwenImage") else 4.0,
        "true_cfg_scale": 3.0,
        "pag_scale": 3.0,
        "output_type": "np",
        "strength": 0.9,
        "generator": torch.Generator().manual_seed(0),
    }
    if "Img2Img" in kind or "Inpaint" in kind:
        arguments["image"] = noise(1, 3, 32, 48)
    if "Inpaint" in kind:
        arguments["mask_image"] = (noise(1, 1, 32, 48, seed=7) > 0.5).float()
    if "Edit" in kind:  # whose encoder reads the picture too
        arguments |= {"image": picture(), "prompt": None, "negative_prompt": None}
        arguments |= {"prompt_embeds": embeds(), "negative_prompt_embeds": embeds(seed=2)}
        ones = torch.ones(1, 7, dtype=torch.long)
        arguments |= {"prompt_embeds_mask": ones, "negative_prompt_embeds_mask": ones}
    arguments = {name: value for name, value in arguments.items() if name in asked}
    return pipeline(kind)(**(arguments | given)).images
