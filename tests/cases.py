"""The calls that tests make of the pipelines, and what is left of one that was recorded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from tests.models import pipeline

PROMPT, NEGATIVE = "a man portrait cinematic", "sketch"
FLUX_CALL = {"max_sequence_length": 16, "guidance_scale": 3.5}
CONTROL = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(7))


@dataclass(frozen=True)
class Case:
    """One pipeline in one mode of guidance; calling it makes images, the same for the same seeds."""

    name: str
    pipeline: str
    call: dict[str, Any] = field(default_factory=dict)
    branches: int = 1
    negative: str = NEGATIVE
    """What the negative branch is of, where there is one."""

    @property
    def pipe(self) -> Any:
        return pipeline(self.pipeline)

    @property
    def denoiser(self) -> Any:
        return self.pipe.transformer if self.is_transformer else self.pipe.unet

    @property
    def size(self) -> dict[str, int]:
        """Pixels; not square, and 8 x 12 latents for all."""
        return {"height": 32, "width": 48} if self.is_transformer else {"height": 16, "width": 24}

    @property
    def is_transformer(self) -> bool:
        return not self.pipeline.startswith(("sd_", "sdxl")) and self.pipeline != "sd"

    @property
    def is_flux(self) -> bool:
        return self.pipeline.startswith(("flux", "infusenet")) and self.pipeline != "flux2"

    @property
    def has_controlnet(self) -> bool:
        return self.pipeline.endswith("controlnet") or self.pipeline == "infusenet"

    @property
    def order(self) -> str:
        """How the branches are run: `turns`, positive first; or in one batch `first` or `last`."""
        if self.pipeline in ("sd3", "z_image"):
            return "last" if self.pipeline == "sd3" else "first"
        return "turns" if self.is_transformer else "last"

    @property
    def weight(self) -> float:
        """Of the positive branch in the guided output; that of the negative one is 1 less it."""
        if self.branches == 1:
            return 1.0
        if self.pipeline == "z_image":  # positive + scale (positive - negative)
            return 1 + self.call["guidance_scale"]
        by_true = self.is_flux or self.pipeline == "qwen"
        return self.call["true_cfg_scale" if by_true else "guidance_scale"]

    def __call__(self, seeds: tuple[int, ...] = (0,), **changed: Any) -> np.ndarray:
        """Images (sample, row, column, rgb) in [0, 1] of one prompt, one for each seed, in 3 steps."""
        call = self.call | self.size | changed
        batch = len(seeds)
        if "negative_prompt" in call:
            call["negative_prompt"] = [call["negative_prompt"]] * batch
        if self.has_controlnet:
            name = "control_image" if self.is_flux else "image"
            call.setdefault(name, CONTROL.expand(batch, -1, -1, -1))
        return self.pipe(
            prompt=call.pop("prompt", [PROMPT] * batch),
            num_inference_steps=call.pop("steps", 3),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type=call.pop("output_type", "np"),
            **call,
        ).images


TRUE_CFG = FLUX_CALL | {"true_cfg_scale": 3.0, "negative_prompt": NEGATIVE}
UNET_CFG = {"guidance_scale": 5.0, "negative_prompt": NEGATIVE}
WITHOUT_CFG = {"guidance_scale": 1.0}
SHORT = {"max_sequence_length": 16}
HIDDEN = SHORT | {"text_encoder_out_layers": (1,)}

CASES = {
    case.name: case
    for case in (
        Case("flux", "flux", FLUX_CALL),
        Case("flux_cfg", "flux", TRUE_CFG, 2),
        Case("flux_controlnet", "flux_controlnet", FLUX_CALL),
        Case("flux_controlnet_cfg", "flux_controlnet", TRUE_CFG, 2),
        Case("infusenet", "infusenet", FLUX_CALL),
        Case("infusenet_cfg", "infusenet", TRUE_CFG, 2),
        Case("sd", "sd", WITHOUT_CFG),
        Case("sd_cfg", "sd", UNET_CFG, 2),
        Case("sd_controlnet_cfg", "sd_controlnet", UNET_CFG, 2),
        Case("sdxl", "sdxl", WITHOUT_CFG),
        Case("sdxl_cfg", "sdxl", UNET_CFG, 2),
        Case("sdxl_controlnet_cfg", "sdxl_controlnet", UNET_CFG, 2),
        Case("sd3", "sd3", SHORT | WITHOUT_CFG),
        Case("sd3_cfg", "sd3", SHORT | UNET_CFG, 2),
        Case("chroma", "chroma", SHORT | WITHOUT_CFG),
        Case("chroma_cfg", "chroma", SHORT | UNET_CFG, 2),
        Case("qwen", "qwen", SHORT | {"true_cfg_scale": 1.0}),
        Case("qwen_cfg", "qwen", SHORT | {"true_cfg_scale": 3.0, "negative_prompt": NEGATIVE}, 2),
        Case("flux2", "flux2", HIDDEN),
        Case("klein", "klein", HIDDEN | WITHOUT_CFG),
        Case("klein_cfg", "klein", HIDDEN | {"guidance_scale": 3.0}, 2, negative=""),
        Case("z_image", "z_image", SHORT | {"guidance_scale": 0.0}),
        Case("z_image_cfg", "z_image", SHORT | UNET_CFG, 2),
    )
}
FAMILIES = ("sd3", "chroma", "qwen", "flux2", "klein", "z_image")
"""Pipelines of tests/family_models.py."""


def unguided(case: "Case") -> "Case":
    """The same pipeline without classifier-free guidance."""
    name = case.name.removesuffix("_cfg")
    call = FLUX_CALL if case.is_flux else WITHOUT_CFG
    return CASES.get(name, Case(name, case.pipeline, call))


def wiring(pipe: Any) -> dict[str, Any]:
    """Everything that recording could leave behind: hooks, and names in instance dictionaries."""
    found: dict[str, Any] = {"pipe": sorted(vars(pipe)), "scheduler": sorted(vars(pipe.scheduler))}
    for part, component in pipe.components.items():
        if isinstance(component, nn.Module):
            for name, module in component.named_modules():
                inside = vars(module)
                hooks = {
                    k: list(v) for k, v in inside.items() if "hook" in k and isinstance(v, dict)
                }
                found[f"{part}.{name}"] = sorted(inside), hooks
    return found


@dataclass(frozen=True)
class Recorded:
    """A case that was recorded: its run, what it returned, and the pipeline's wiring around it."""

    path: Path
    run: xr.Dataset
    images: np.ndarray
    wiring: dict[str, Any]
