"""Where models run."""

import ctypes
import platform

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


_TRIM, _MMAP = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let the process keep the memory of tensors that are gone, for those that come; with glibc alone.

    A batch's activations are of megabytes, and glibc gives those back to the system: each is then filled
    with pages anew, which takes an eighth of a pass of the pocket FLUX on a CPU.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP, 32 * 2**20)  # the most that it takes
        libc.mallopt(_TRIM, 2**31 - 1)
