"""What made a run: versions, device, pipeline, scheduler and capture, as JSON values."""

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from typing import Any

import torch
from torch import nn

from stepscope.hooks.capture import Capture
from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.offloaded import cast_to, is_moved

PACKAGES = ("stepscope", "torch", "diffusers", "transformers", "zarr", "numpy")


def provenance(pipe: Any, capture: Capture, models: Mapping[str, str]) -> dict[str, Any]:
    """Attributes of a run that say what ran, on what, and when it began (UTC).

    models: component -> fingerprint of its weights. To be asked while the pipeline has not yet moved
    its models off the device.
    """
    denoiser, vae = denoiser_of(pipe), getattr(pipe, "vae", None)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": device_name(device_of(pipe)),
        "dtype": compute_dtype(denoiser),
        "autocast": autocast_to(device_of(pipe)),
        "vae_dtype": compute_dtype(vae) if vae is not None else "",
        "pipeline": type(pipe).__name__,
        "loaded_from": str(getattr(pipe, "name_or_path", None) or ""),
        "models": dict(models),
        "denoiser": {"class": type(denoiser).__name__, **_plain(denoiser.config)},
        "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
        "vae": _plain(vae.config) if vae is not None else {},
        "capture": asdict(capture),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    return {"python": platform.python_version()} | {name: _installed(name) for name in PACKAGES}


@cache
def _installed(name: str) -> str:
    """A package's version; it is read from files, and stays for as long as the process."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def device_of(pipe: Any) -> torch.device:
    """Where the denoiser computes, also where its weights are elsewhere between passes (offloaded)."""
    denoiser = denoiser_of(pipe)
    held = next(denoiser.parameters()).device
    if held.type in ("cuda", "mps", "xpu") or not is_moved(denoiser):
        return held
    # diffusers' own property walks through every module of the pipeline
    return torch.device(getattr(pipe, "_execution_device", held))


def compute_dtype(model: nn.Module) -> str:
    """The dtype that a model computes in: its weights' own, if those are not packed or cast at each layer.

    Weights in float8 or whole numbers (quantized) are cast before they are used; then it is that of
    the parameters that are not.
    """
    cast = cast_to(model)
    if cast is not None:
        return str(cast).removeprefix("torch.")
    kinds = (weight.dtype for weight in model.parameters())
    computing = (k for k in kinds if k.is_floating_point and k.itemsize > 1)
    found = next(computing, None) or next(model.parameters()).dtype
    return str(found).removeprefix("torch.")


def autocast_to(device: torch.device) -> str:
    """The dtype of `torch.autocast`, in which the call computes whatever its weights are; empty without."""
    if not torch.is_autocast_enabled(device.type):
        return ""
    return str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")


def device_name(device: torch.device) -> str:
    """The device in words: a GPU's product name, or the processor's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def _plain(config: Any) -> dict[str, Any]:
    """A diffusers configuration without what is private or no JSON value."""
    kinds = (str, int, float, bool, list, tuple, type(None))
    return {k: v for k, v in config.items() if not k.startswith("_") and isinstance(v, kinds)}
