"""What model it is, by its weights: a short hash of a sample of every tensor.

Reading 24 GB to be sure of a model would take longer than an image. Sixteen values of each tensor,
its name, shape and dtype tell models apart that were trained or merged differently.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

VALUES = 16
# What adapters add to a model's own weights, by diffusers' and peft's names.
_ADDED = re.compile(r"(^|\.)(lora_\w+|processor|encoder_hid_proj|hra_\w+|modules_to_save)\.")


def of_bytes(data: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def of_tensors(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A hash of names, shapes, dtypes and up to `VALUES` evenly spaced values of each tensor.

    A tensor without values here (on the meta device, as accelerate leaves what it offloaded) adds its
    name, shape and dtype alone.
    """
    digest, samples = hashlib.sha256(), []
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if not tensor.is_meta and tensor.numel():
            samples.append(_sample(tensor.detach()))
    for sample in _together(samples):
        digest.update(sample)
    return digest.hexdigest()[:16]


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.reshape(-1) if tensor.is_contiguous() else tensor.flatten()
    places = torch.linspace(0, len(flat) - 1, min(VALUES, len(flat)), device=flat.device).long()
    return flat.view(torch.uint8 if flat.element_size() == 1 else flat.dtype)[places]


def _together(samples: list[torch.Tensor]) -> Iterable[bytes]:
    """The samples' bytes in order, in one transfer from each device."""
    groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for sample in samples:
        groups.setdefault((sample.device, sample.dtype), []).append(sample)
    for _, group in sorted(groups.items(), key=lambda item: str(item[0][1])):
        yield torch.cat(group).cpu().view(torch.uint8).numpy().tobytes()


class Fingerprints:
    """Fingerprints of a pipeline's models, made again only where a weight was changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], str]] = {}

    def of_models(self, pipe: Any) -> dict[str, str]:
        """Component -> fingerprint of its own weights, adapters' left out."""
        return {
            name: self._cached(name, own_weights(model))
            for name, model in pipe.components.items()
            if isinstance(model, nn.Module)
        }

    def _cached(self, name: str, named: list[tuple[str, torch.Tensor]]) -> str:
        state = tuple((id(t), _version(t), str(t.dtype)) for _, t in named)
        known = self._known.get(name)
        if known is None or known[0] != state:
            self._known[name] = known = state, of_tensors(named)
        return known[1]

    def of_weights(self, key: str, named: list[tuple[str, torch.Tensor]]) -> str:
        """The fingerprint of any named tensors, remembered under `key`."""
        return self._cached(key, named)


def own_weights(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """A model's parameters, by the names that they have without adapters."""
    return [
        (name.replace(".base_layer.", "."), weight)
        for name, weight in model.named_parameters()
        if not _ADDED.search(name)
    ]


def _version(tensor: torch.Tensor) -> int:
    """How often the tensor was written; 0 for one that does not count (made under inference_mode)."""
    return 0 if tensor.is_inference() else tensor._version
