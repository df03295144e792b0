"""Memory that is used up, as the libraries say it."""

import torch


def memory(error: BaseException) -> str | None:
    """Which memory an error says is used up; None if it says something else."""
    if isinstance(error, torch.OutOfMemoryError):
        return "GPU memory"
    # c10's CPU allocator has no error class of its own (c10/core/impl/alloc_cpu.cpp).
    full = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return "memory" if full else None
