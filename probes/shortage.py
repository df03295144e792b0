"""Memory that is used up, as the libraries say it."""

import sys


def memory(error: BaseException) -> str | None:
    """Which memory an error says is used up; None if it says something else."""
    torch = sys.modules.get("torch")  # a process that has not imported it has not met its error
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return "GPU memory"
    # c10's CPU allocator has no error class of its own (c10/core/impl/alloc_cpu.cpp).
    full = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    return "memory" if full else None
