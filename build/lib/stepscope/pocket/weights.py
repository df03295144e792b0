"""Weights as they travel: half-precision safetensors, read back as float32."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepscope.pocket.process import device

M = TypeVar("M", bound=nn.Module)


def save_half(module: nn.Module, path: Path) -> None:
    """Write a module's state as float16 safetensors (integers stay as they are)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(cast_state(module.state_dict(), torch.float16), path)


def load_half(module: M, path: Path) -> M:
    """Fill a module from save_half's file: float32, on the current device, frozen, in eval mode."""
    state = cast_state(load_file(path), torch.float32)
    module.load_state_dict(state)
    return module.to(device()).eval().requires_grad_(False)


def cast_state(state: Mapping[str, Tensor], size: torch.dtype) -> dict[str, Tensor]:
    """A state on the CPU, its floating-point tensors of another size."""
    return {
        k: (v.detach().to(size) if v.is_floating_point() else v.detach()).contiguous().cpu()
        for k, v in state.items()
    }
