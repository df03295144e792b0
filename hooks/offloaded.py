"""Weights that are elsewhere between two passes of their model, or in another dtype: what holds them knows.

accelerate leaves tensors on the meta device, and diffusers' group offloading to disk leaves tensors of
whatever was in memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from safetensors import safe_open
from torch import nn


def is_moved(model: nn.Module) -> bool:
    """Whether accelerate or diffusers has hooks in the model, which may move or cast its weights."""
    return any("_hf_hook" in vars(m) or _of_diffusers(m) for m in _hooked(model.modules()))


def held_values(modules: Iterable[nn.Module]) -> dict[int, torch.Tensor]:
    """id of a parameter -> its values, for those whose own are not here; read from disk when asked for."""
    found: dict[int, torch.Tensor] = {}
    for module in _hooked(modules):
        for hook in _of_accelerate(module):
            for name, parameter in module.named_parameters(recurse=hook.place_submodules):
                if parameter.is_meta and name in hook.weights_map:
                    found[id(parameter)] = hook.weights_map[name]
        group = getattr(_of_diffusers(module).get("group_offloading"), "group", None)
        if group is not None and group.offload_to_disk_path and group._is_offloaded_to_disk:
            with safe_open(group.safetensors_file_path, "pt") as file:
                found |= {id(t): file.get_tensor(key) for t, key in group.tensor_to_key.items()}
    return found


def cast_to(model: nn.Module) -> torch.dtype | None:
    """What diffusers' layerwise casting computes in; None without it."""
    hooks = (_of_diffusers(m).get("layerwise_casting") for m in _hooked(model.modules()))
    return next((hook.compute_dtype for hook in hooks if hook is not None), None)


def _hooked(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules, of thousands, in which accelerate or diffusers keeps anything."""
    return [m for m in modules if "_hf_hook" in vars(m) or "_diffusers_hook" in vars(m)]


def _of_diffusers(module: nn.Module) -> Mapping[str, Any]:
    """Hooks of diffusers' registry by name; a registry may be empty."""
    return getattr(vars(module).get("_diffusers_hook"), "hooks", {})


def _of_accelerate(module: nn.Module) -> Iterator[Any]:
    """Hooks that keep the weights of a module elsewhere."""
    hook = vars(module).get("_hf_hook")
    for one in getattr(hook, "hooks", [hook]):  # several are in a SequentialHook
        if getattr(one, "offload", False) and getattr(one, "weights_map", None) is not None:
            yield one
