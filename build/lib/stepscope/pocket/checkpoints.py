"""A training state on disk, in parts of a bounded size."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# A checkpoint is cut into parts of at most this many bytes, for media that limit a single file.
PART = 15 * 2**20


def write_parts(path: Path, state: Mapping[str, Any]) -> None:
    """Save a state as `path.0.part`, `path.1.part`, ... of at most PART bytes each."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    data = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f"{path.name}.*.part"):
        stale.unlink()
    for i in range(0, len(data), PART):
        (path.parent / f"{path.name}.{i // PART}.part").write_bytes(data[i : i + PART])


def read_parts(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state that write_parts saved, on the given device; None where there is none."""
    parts = sorted(path.parent.glob(f"{path.name}.*.part"), key=lambda p: int(p.suffixes[-2][1:]))
    if not parts:
        return None
    data = b"".join(p.read_bytes() for p in parts)
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)
