"""FLUX backbones through diffusers' own pipelines; a backbone always brings its own scheduler."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetPipeline,
    FluxPipeline,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.study import Backbone, Study
from stepscope.probes.weights import (
    check_complete,
    check_same_layout,
    explained,
    local_folder,
)

PARTS = ("transformer", "vae", "scheduler")
"""Folders of a backbone without which none is read."""


def load(backbone: Backbone, device: str, controlnet: Any = None) -> Any:
    """A FluxPipeline, or a FluxControlNetPipeline around `controlnet`, on the device, without its bars.

    Raises WeightsError if the weights are missing or gated, StepscopeError for a mixture of one
    backbone's weights with another's schedule.
    """
    dtype = getattr(torch, backbone.dtype)
    path = backbone_folder(backbone)
    with explained(backbone.path, f"backbone {backbone.name}"):
        if controlnet is None:
            pipe = FluxPipeline.from_pretrained(path, dtype=dtype)
        else:
            pipe = FluxControlNetPipeline.from_pretrained(path, controlnet=controlnet, dtype=dtype)
        for model in (pipe.transformer, pipe.vae):
            check_complete(model)
    check_pairing(pipe.transformer.config, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def backbone_folder(backbone: Backbone, *, download: bool = True) -> Path:
    """A local folder as it is; of a hub repository, what its `model_index.json` names, and no more.

    FLUX.1-dev's holds its transformer and VAE twice, of which diffusers reads 34 of 58 GB. Raises
    WeightsError.
    """
    what = f"backbone {backbone.name}"
    local = local_folder(backbone.path, what)
    if local is not None:
        check_same_layout(local, what, PARTS)
        return local
    with explained(backbone.path, what):
        return Path(DiffusionPipeline.download(backbone.path, local_files_only=not download))


def check_pairing(transformer: Any, scheduler: Any) -> None:
    """Raise StepscopeError if a transformer runs under the other backbone's schedule.

    FLUX.1-dev has a guidance embedding and a resolution-dependent (dynamic) shift; schnell has
    neither. Swapping `pipe.transformer` alone keeps dev's schedule silently: sigmas
    1, .90, .75, .50 where schnell was distilled for 1, .75, .50, .25.
    """
    guided, dynamic = bool(transformer.guidance_embeds), bool(scheduler.use_dynamic_shifting)
    if guided != dynamic:
        weights, schedule = ("dev", "schnell") if guided else ("schnell", "dev")
        raise StepscopeError(
            f"these are {weights}'s weights (guidance_embeds={guided}) under {schedule}'s schedule "
            f"(use_dynamic_shifting={dynamic}): take the scheduler from the backbone's own folder"
        )


def schedule(pipe: Any, steps: int, height: int, width: int) -> torch.Tensor:
    """Sigmas at the start of each of the run's steps, (step,), as the pipeline will set them."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    y, x = (2 * (side // (pipe.vae_scale_factor * 2)) for side in (height, width))
    config = scheduler.config
    mu = calculate_shift(
        (y // 2) * (x // 2),
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
    retrieve_timesteps(scheduler, steps, "cpu", sigmas=sigmas, mu=mu)
    return scheduler.sigmas[:-1]


def planned_sigmas(study: Study, path: Path) -> list[float]:
    """Sigmas of a study's steps from the configurations of a backbone's folder alone."""
    vae: Any = AutoencoderKL.load_config(path / "vae")
    levels = len(vae["block_out_channels"])
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(path / "scheduler")
    pipe = SimpleNamespace(scheduler=scheduler, vae_scale_factor=2 ** (levels - 1))
    return schedule(pipe, study.steps, study.height, study.width).tolist()


def pick_device(name: str) -> str:
    """`auto` is the first of CUDA, Apple's GPU and the CPU that is there.

    Raises StepscopeError for a device that this machine does not have.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cuda", *(f"cuda:{i}" for i in range(count))] if count else []
    there += ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        return there[0]
    if name not in there:
        raise StepscopeError(f"no device={name!r} here; known: auto, {', '.join(there)}")
    return name
