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

    @property
    def pipe(self) -> Any:
        return pipeline(self.pipeline)

    @property
    def denoiser(self) -> Any:
        return self.pipe.transformer if self.is_flux else self.pipe.unet

    @property
    def size(self) -> dict[str, int]:
        """Pixels; not square, and 8 x 12 latents for all."""
        return {"height": 32, "width": 48} if self.is_flux else {"height": 16, "width": 24}

    @property
    def is_flux(self) -> bool:
        return not self.pipeline.startswith("sd")

    @property
    def has_controlnet(self) -> bool:
        return self.pipeline not in ("flux", "sd", "sdxl")

    def __call__(self, seeds: tuple[int, ...] = (0,), **changed: Any) -> np.ndarray:
        """Images (sample, row, column, rgb) in [0, 1] of one prompt, one for each seed, in 3 steps."""
        call = self.call | self.size | changed
        batch = len(seeds)
        negative = call.pop("negative_prompt", None)
        if self.has_controlnet:
            name = "control_image" if self.is_flux else "image"
            call.setdefault(name, CONTROL.expand(batch, -1, -1, -1))
        return self.pipe(
            prompt=call.pop("prompt", [PROMPT] * batch),
            negative_prompt=None if negative is None else [negative] * batch,
            num_inference_steps=call.pop("steps", 3),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type=call.pop("output_type", "np"),
            **call,
        ).images


TRUE_CFG = FLUX_CALL | {"true_cfg_scale": 3.0, "negative_prompt": NEGATIVE}
UNET_CFG = {"guidance_scale": 5.0, "negative_prompt": NEGATIVE}
WITHOUT_CFG = {"guidance_scale": 1.0}

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
    )
}


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
