"""Where models run."""

import torch

from stepscope.hooks.errors import StepscopeError


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
