"""Stable Diffusion 1.5 and XL through diffusers' own pipelines, and their few-step distillations."""

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.estimate import levels
from stepscope.hooks.patch import replaced
from stepscope.probes.backbones.distilled import (
    check_distilled,
    distillation_of,
    scheduler_for,
    take_weights,
)
from stepscope.probes.backbones.family import Backbone, Outline, Sizes
from stepscope.probes.backbones.folders import downloaded, laid_out, latent_sizes
from stepscope.probes.backbones.unet_shapes import TEXT_TOKENS, SiteShapes
from stepscope.probes.weights import (
    WeightsError,
    check_complete,
    explained,
    first_line,
    is_file,
    meta,
    weight_files,
)

PARTS = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
"""Folders of a backbone without which none is read."""


@dataclass(frozen=True)
class StableDiffusion:
    """A U-Net with CLIP's text. plain, controlled: diffusers' pipelines, without a ControlNet and with one.

    xl: whether the U-Net also reads a pooled text and the picture's size.
    """

    name: str
    title: str
    plain: Any
    controlled: Any
    xl: bool

    longest_text = TEXT_TOKENS

    def folder(self, backbone: Backbone, *, download: bool = True, settings: bool = False) -> Path:
        """A local folder as it is; of a hub repository, what its `model_index.json` names.

        Of a single file, the folder of its base. Raises WeightsError.
        """
        found = laid_out(backbone, PARTS, self.title, settings=settings)
        if found is None:
            return downloaded(backbone, download=download)
        self._check_kind(backbone, found)
        return found

    def files(self, backbone: Backbone) -> dict[str, Path]:
        inside = {
            name: found
            for name, found in weight_files(self.folder(backbone, download=False)).items()
            if "/" in name and not name.startswith(("safety_checker/", "image_encoder/"))
        }
        return weight_files(backbone.path) if is_file(backbone.path) else inside

    def load(self, backbone: Backbone, device: str, components: Mapping[str, Any]) -> Any:
        dtype, path = getattr(torch, backbone.dtype), self.folder(backbone)
        kind = self.controlled if "controlnet" in components else self.plain
        given = dict(components)
        if not self.xl:  # which blackens pictures: a probe looks at what was made
            given |= {"safety_checker": None, "requires_safety_checker": False}
        with explained(backbone.path, f"backbone {backbone.name}"):
            if is_file(backbone.path):
                pipe = kind.from_single_file(
                    backbone.path, config=str(path), torch_dtype=dtype, **given
                )
            else:
                pipe = kind.from_pretrained(path, dtype=dtype, **given)
            for model in (pipe.unet, pipe.vae):
                check_complete(model)
        if backbone.weights is not None:
            take_weights(pipe, backbone.weights)
        pipe.scheduler = scheduler_for(backbone, _config(path / "scheduler"))
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)

    def outline(self, study: Sizes, folder: Path) -> Outline:
        backbone = study.backbone
        with explained(backbone.path, f"backbone {backbone.name}"):
            unet = meta(UNet2DConditionModel, folder / "unet")
            factor = latent_sizes(folder).factor
        own = _config(folder / "scheduler")
        check_distilled(backbone, unet.config, own, study.steps)
        self._check_guidance(study, unet)
        scheduler = scheduler_for(backbone, own)
        check_passes(scheduler, study.steps)
        y, x = study.height // factor, study.width // factor
        lowest = 2 ** (len(unet.config["block_out_channels"]) - 1)
        if study.height % factor or study.width % factor or y < lowest or x < lowest:
            raise StepscopeError(
                f"height={study.height}, width={study.width}: {self.title} makes multiples of {factor} "
                f"from {factor * lowest} on"
            )
        latent = unet.config["in_channels"], y, x
        shapes = SiteShapes(unet, latent, self.xl)
        image = y * factor, x * factor
        return Outline(unet, latent, image, (y, x), ("image", "text"), shapes.of)

    def sigmas(self, study: Sizes, pipe: Any) -> Tensor:
        return _levels(type(pipe.scheduler).from_config(pipe.scheduler.config), study.steps)

    def planned_sigmas(self, study: Sizes, folder: Path) -> list[float]:
        scheduler = scheduler_for(study.backbone, _config(folder / "scheduler"))
        return _levels(scheduler, study.steps).tolist()

    def arguments(self, study: Sizes, pipe: Any) -> dict[str, Any]:
        guided = pipe.unet.config.time_cond_proj_dim is not None
        return {
            "num_inference_steps": study.steps,
            "guidance_scale": study.guidance if guided else study.true_cfg,
            "height": study.height,
            "width": study.width,
            "output_type": "np",
        }

    def negative(self, study: Sizes, rows: int) -> list[str] | None:
        """None where none is named: XL reads zeros then, 1.5 the empty text."""
        named = study.negative_prompt is not None and study.true_cfg > 1
        return [str(study.negative_prompt)] * rows if named else None

    def packed(self, latents: Tensor) -> Tensor:
        """As they are: the pipeline scales unit noise to its scheduler's first level."""
        return latents

    def starting(self, pipe: Any) -> AbstractContextManager[None]:
        def as_given(original: Any, *args: Any, **more: Any) -> Tensor:
            bound = inspect.signature(original).bind(*args, **more).arguments
            return bound["latents"].to(bound["device"])

        return replaced(pipe, "prepare_latents", as_given)

    def unpacked(self, latents: Tensor, sides: Sequence[int]) -> Tensor:
        return latents

    def text_tokens(self, pipe: Any, texts: Sequence[str], longest: int) -> list[int]:
        """Those of CLIP, with its two marks."""
        made = pipe.tokenizer(list(texts), padding="max_length", truncation=True)
        return [sum(mask) for mask in made["attention_mask"]]

    def notes(self, study: Sizes, folder: Path) -> Iterator[str]:
        distilled, name = distillation_of(study.backbone), study.backbone.name
        unet: Any = UNet2DConditionModel.load_config(folder / "unet")
        if study.guidance is not None and unet.get("time_cond_proj_dim") is None:
            yield f"guidance={study.guidance} is not read: {name} has no guidance embedding"
        if distilled is not None and not distilled.guided and study.true_cfg > 1:
            yield (
                f"true_cfg={study.true_cfg}: {name} is distilled to be run without classifier-free "
                "guidance, true_cfg=1"
            )

    def _check_guidance(self, study: Sizes, unet: Any) -> None:
        if unet.config.time_cond_proj_dim is None:
            return
        if study.guidance is None:
            raise StepscopeError(
                f"{study.backbone.name} has a guidance embedding: name guidance=8.0"
            )
        if study.true_cfg > 1:
            raise StepscopeError(
                f"true_cfg={study.true_cfg}: {study.backbone.name} reads guidance in an embedding, "
                "and diffusers makes no negative pass with it"
            )

    def _check_kind(self, backbone: Backbone, folder: Path) -> None:
        index = folder / "model_index.json"
        named = json.loads(index.read_text())["_class_name"] if index.is_file() else ""
        if named and ("XL" in named) != self.xl:
            other = "sd15" if self.xl else "sdxl"
            raise WeightsError(
                f"backbone {backbone.name}: {backbone.path!r} is of {named}: backbone.family={other}"
            )


SD15 = StableDiffusion(
    "sd15", "SD 1.5", StableDiffusionPipeline, StableDiffusionControlNetPipeline, xl=False
)
SDXL = StableDiffusion(
    "sdxl", "SDXL", StableDiffusionXLPipeline, StableDiffusionXLControlNetPipeline, xl=True
)


def check_passes(scheduler: Any, steps: int) -> None:
    """Raise StepscopeError for a scheduler of which a step is not one pass, or that cannot make so few."""
    name, cure = type(scheduler).__name__, "name another, backbone.scheduler=DDIMScheduler"
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        told = f"{name} cannot make steps={steps} ({first_line(error)}): {cure}"
        raise StepscopeError(told) from error
    if len(scheduler.timesteps) != steps:
        made = len(scheduler.timesteps)
        raise StepscopeError(f"{name} makes {made} passes in steps={steps}: {cure}")


def _config(folder: Path) -> dict[str, Any]:
    """A scheduler's configuration as it is in its folder. Raises WeightsError."""
    path = folder / "scheduler_config.json"
    with explained(str(path), "scheduler"):
        found: dict[str, Any] = json.loads(path.read_text())
    return found


def _levels(scheduler: Any, steps: int) -> Tensor:
    scheduler.set_timesteps(steps)
    times = torch.as_tensor(scheduler.timesteps).float()
    return levels(scheduler, range(steps), times).sigma
