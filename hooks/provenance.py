"""What made a run: versions, device, pipeline, scheduler and capture, as JSON values."""

import importlib.metadata
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from hooks.capture import Capture
from hooks.clock import denoiser_of

PACKAGES = ("stepscope", "torch", "diffusers", "transformers", "zarr", "numpy")


def provenance(pipe: Any, capture: Capture) -> dict[str, Any]:
    """Attributes of a run that say what ran, on what, and when it began (UTC)."""
    denoiser = denoiser_of(pipe)
    device = next(denoiser.parameters()).device
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "device": device_name(device),
        "dtype": str(next(denoiser.parameters()).dtype).removeprefix("torch."),
        "pipeline": type(pipe).__name__,
        "denoiser": {"class": type(denoiser).__name__, **_plain(denoiser.config)},
        "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
        "vae": _plain(pipe.vae.config),
        "capture": asdict(capture),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """The device in words: a GPU's product name, or the processor's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"


def _plain(config: Any) -> dict[str, Any]:
    """A diffusers configuration without what is private or no JSON value."""
    kinds = (str, int, float, bool, list, tuple, type(None))
    return {k: v for k, v in config.items() if not k.startswith("_") and isinstance(v, kinds)}
