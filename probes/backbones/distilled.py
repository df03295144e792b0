"""Few-step distillations of Stable Diffusion, each with the scheduler that it was distilled for.

Turbo: Sauer et al. 2023 (ADD), the scheduler of stabilityai/sdxl-turbo. The others after their model cards:
Lightning (Lin et al. 2024, ByteDance/SDXL-Lightning), Hyper (Ren et al. 2024, ByteDance/Hyper-SD), LCM
(Luo et al. 2023, latent-consistency/lcm-lora-sdxl), TCD (Zheng et al. 2024, h1t/TCD-SDXL-LoRA).
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.hooks.estimate import SCHEDULERS
from stepscope.hooks.fingerprint import tuner_layers
from stepscope.probes.backbones.family import Backbone
from stepscope.probes.weights import WeightsError, explained, file

TRAILING = {"timestep_spacing": "trailing"}


@dataclass(frozen=True)
class Distillation:
    """How few steps are made. scheduler: the class of diffusers; settings: its own; most: steps at most."""

    scheduler: str
    most: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    guided: bool = False


DISTILLATIONS: dict[str, Distillation] = {
    "turbo": Distillation("EulerAncestralDiscreteScheduler", 4, TRAILING),
    "lightning": Distillation("EulerDiscreteScheduler", 8, TRAILING),
    "hyper": Distillation("DDIMScheduler", 8, TRAILING),
    "lcm": Distillation("LCMScheduler", 8, guided=True),
    "tcd": Distillation("TCDScheduler", 8),
}
"""By the value of `backbone.distillation`. guided: some classifier-free guidance above 1 is of use."""


def distillation_of(backbone: Backbone) -> Distillation | None:
    """None for a backbone that is not distilled. Raises StepscopeError for a word that is not known."""
    word = backbone.distillation
    if word is None:
        return None
    if word not in DISTILLATIONS:
        raise StepscopeError(f"backbone.distillation={word!r}; {nearest(word, DISTILLATIONS)}")
    return DISTILLATIONS[word]


def scheduler_for(backbone: Backbone, own: Mapping[str, Any]) -> Any:
    """The scheduler of a run. own: the configuration in the backbone's folder.

    Raises StepscopeError for a scheduler that the weights were not made for, or that is not known.
    """
    distilled = distillation_of(backbone)
    wanted = distilled.scheduler if distilled is not None else backbone.scheduler
    named = str(own["_class_name"])
    if distilled is not None and backbone.scheduler not in (None, distilled.scheduler):
        raise StepscopeError(
            f"backbone.distillation={backbone.distillation} steps with {distilled.scheduler}, and "
            f"backbone.scheduler={backbone.scheduler}: leave backbone.scheduler out"
        )
    known = {kind.__name__: kind for kind in SCHEDULERS}
    word = wanted or named
    if word not in known:
        raise StepscopeError(f"scheduler {word!r} is not known here; {nearest(word, known)}")
    settings = dict(distilled.settings) if distilled is not None else {}
    takes = inspect.signature(known[word].__init__).parameters
    if "clip_sample" in takes and "clip_sample" not in own:
        settings["clip_sample"] = False  # of pixels; the default of DDIM's own class
    return known[word].from_config(dict(own), **settings)  # type: ignore[attr-defined]


def check_distilled(
    backbone: Backbone, unet: Mapping[str, Any], own: Mapping[str, Any], steps: int
) -> None:
    """Raise StepscopeError where a distilled model would be stepped as one that is not, or the reverse.

    unet, own: configurations of the U-Net and of the folder's scheduler. steps: of the run.
    """
    distilled = distillation_of(backbone)
    name, guided = backbone.name, unet.get("time_cond_proj_dim") is not None
    if guided and backbone.distillation != "lcm":
        raise StepscopeError(
            f"{name} has an LCM's U-Net (time_cond_proj_dim): backbone.distillation=lcm"
        )
    turbo = str(own["_class_name"]) == "EulerAncestralDiscreteScheduler"
    if distilled is None and turbo and own.get("timestep_spacing") == "trailing":
        raise StepscopeError(
            f"{name} brings Turbo's schedule (EulerAncestralDiscreteScheduler, trailing): "
            "backbone.distillation=turbo, backbone.scheduler=null"
        )
    key, place = ("weights", backbone.weights) if backbone.weights else ("path", backbone.path)
    word = distilled_by(place, folder=key == "weights")
    if distilled is None and word is not None:
        raise StepscopeError(
            f"backbone.{key}={place!r} is distilled by its name: backbone.distillation={word}"
        )
    if distilled is None:
        return
    if word not in (None, backbone.distillation):
        raise StepscopeError(
            f"backbone.{key}={place!r} is {word} by its name, and "
            f"backbone.distillation={backbone.distillation}"
        )
    if backbone.weights is None and word is None and not guided and not turbo:
        raise StepscopeError(
            f"backbone.distillation={backbone.distillation} has no weights: name its U-Net or LoRA, "
            "backbone.weights=FILE, or a distilled backbone.path, whose name says what it is"
        )
    if (count := steps_of(place)) is not None and steps != count:
        raise StepscopeError(
            f"steps={steps}: {place} is distilled for {count} by its name, steps={count}"
        )
    if steps > distilled.most:
        raise StepscopeError(
            f"steps={steps}: backbone.distillation={backbone.distillation} is made for {distilled.most} "
            "at most"
        )


def steps_of(weights: str) -> int | None:
    """The number of steps that a file's name says: `sdxl_lightning_4step_lora.safetensors`."""
    found = re.search(r"(\d+)[-_ ]?steps?\b|(\d+)step", weights.rpartition("/")[2].lower())
    return int(found[1] or found[2]) if found else None


def distilled_by(place: str, *, folder: bool = True) -> str | None:
    """The distillation that the name of a file or folder says; folder: or that of the one it lies in."""
    for part in reversed(place.lower().rstrip("/").split("/")[-2 if folder else -1 :]):
        named = re.split(r"[^a-z]+", part)
        if word := next((word for word in DISTILLATIONS if word in named), None):
            return word
    return None


def take_weights(pipe: Any, place: str) -> None:
    """Put a distilled U-Net, or a LoRA that is then fused, into the pipeline. Raises WeightsError."""
    what = "backbone.weights"
    with explained(place, what):
        if Path(place).is_dir():
            pipe.unet = UNet2DConditionModel.from_pretrained(place, torch_dtype=pipe.unet.dtype)
            return
        found = file(place, what)
        state = load_file(found)
        if any("lora" in name for name in state):
            pipe.load_lora_weights(state)
            if not tuner_layers(pipe.unet.named_modules()):  # of which diffusers only warns
                raise WeightsError(
                    f"{what}={place!r} is a LoRA that has nothing for a layer of the backbone's U-Net"
                )
            pipe.fuse_lora()
            pipe.unload_lora_weights()
        else:
            pipe.unet.load_state_dict(state)
