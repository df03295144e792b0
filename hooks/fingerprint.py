"""What model it is, by its weights: a short hash of a sample of every tensor.

Reading 24 GB to be sure of a model would take longer than an image. Sixteen values of each tensor,
its name, shape and dtype tell models apart that were trained or merged differently. They are read anew
for each call: what merges a LoRA into a model writes to its weights where torch does not count it.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from stepscope.hooks.laid import unwrapped
from stepscope.hooks.offloaded import held_values

VALUES = 16
# What an IP-Adapter adds to a model, by diffusers' names.
_ADDED = re.compile(r"(^|\.)(processor|encoder_hid_proj)\.")
# Where peft keeps a layer that it put another one around.
_WITHIN = re.compile(r"\.(base_layer|original_module)\.")


def of_bytes(data: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def of_tensors(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A hash of names, shapes, dtypes and up to `VALUES` evenly spaced values of each tensor.

    A tensor without values (on the meta device) adds its name, shape and dtype alone.
    """
    digest, samples = hashlib.sha256(), []
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if not tensor.is_meta and tensor.numel():
            samples.append(_sample(tensor.detach()))
    for kind in sorted({sample.dtype for sample in samples}, key=str):
        values = _on_host([sample for sample in samples if sample.dtype == kind])
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.reshape(-1)
    if flat.element_size() == 1:  # float8 cannot be indexed everywhere
        flat = flat.view(torch.uint8)
    return flat.index_select(0, _places(len(flat), flat.device))


@lru_cache(maxsize=4096)
def _places(count: int, device: torch.device) -> torch.Tensor:
    """The same on every device: a model has the same fingerprint wherever it is."""
    last = max(1, min(VALUES, count) - 1)
    # In whole numbers: float32 rounds the last place of 2^24 values and more past the end.
    return (torch.arange(min(VALUES, count)) * (count - 1) // last).to(device)


def _on_host(samples: list[torch.Tensor]) -> torch.Tensor:
    """Samples of one dtype in order, in one transfer from each device."""
    devices = {sample.device for sample in samples}
    if len(devices) == 1:
        return torch.cat(samples).cpu()
    found: dict[int, torch.Tensor] = {}
    for device in devices:  # a part of the model is offloaded
        here = [i for i, sample in enumerate(samples) if sample.device == device]
        values = torch.cat([samples[i] for i in here]).cpu()
        found |= zip(here, values.split([len(samples[i]) for i in here]), strict=True)
    return torch.cat([found[i] for i in range(len(samples))])


def of_models(pipe: Any) -> dict[str, str]:
    """Component -> fingerprint of its own weights, those of adapters left out."""
    return {
        name: of_tensors(own_weights(unwrapped(model)))
        for name, model in pipe.components.items()
        if isinstance(model, nn.Module)
    }


def own_weights(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """A model's parameters, by the names that they have without adapters and wherever they are."""
    modules = list(model.named_modules())  # walked once: it takes longer than to read the values
    held = held_values(module for _, module in modules)
    seen = {
        id(weight)
        for layer in tuner_layers(modules).values()
        for part in layer.adapter_layer_names
        for _, weight in parameters_of(getattr(layer, part, None), "")
    }
    found = []
    for path, module in modules:
        for name, weight in module._parameters.items():
            full = f"{path}.{name}" if path else name
            if weight is None or id(weight) in seen or _ADDED.search(full):
                continue
            seen.add(id(weight))  # one that is tied to another counts once
            found.append((_WITHIN.sub(".", full), held.get(id(weight), weight)))
    return found


def tuner_layers(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Any]:
    """Path -> layer, of whatever peft put around a layer of a model (its BaseTunerLayer)."""
    return {
        path: layer for path, layer in modules if getattr(type(layer), "adapter_layer_names", ())
    }


def parameters_of(part: Any, prefix: str) -> list[tuple[str, torch.Tensor]]:
    """Named parameters of a module, or a parameter itself; none of anything else."""
    if isinstance(part, nn.Module):
        return list(part.named_parameters(prefix))
    return [(prefix, part)] if isinstance(part, torch.Tensor) else []
