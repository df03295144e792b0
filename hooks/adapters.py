"""Which adapters are active in a pipeline, how strongly, and which weights they are of.

LoRA sits in layers of its own (peft), an IP-Adapter in the processors of the attentions
(diffusers.loaders); both leave the pipeline's class and configuration as they were.
"""

import json
import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from hooks.fingerprint import Fingerprints


def active_adapters(pipe: Any, denoiser: nn.Module, fingerprints: Fingerprints) -> str:
    """A JSON list of `{"kind", "name", "scale", "fingerprint"}`; `[]` without adapters.

    scale: of LoRA as it is applied to a layer (weight x alpha / rank are two numbers: this is what
    `set_adapters` set); a list where layers or image prompts have scales of their own.
    """
    found = [*_loras(denoiser, fingerprints), *_ip_adapters(denoiser, fingerprints)]
    return json.dumps(found, sort_keys=True)


def _loras(denoiser: nn.Module, fingerprints: Fingerprints) -> list[dict[str, Any]]:
    weights: dict[str, list[tuple[str, torch.Tensor]]] = defaultdict(list)
    scales: dict[str, set[float]] = defaultdict(set)
    layer: Any
    for path, layer in denoiser.named_modules():
        if not hasattr(layer, "lora_A") or layer.disable_adapters:
            continue
        for name in layer.active_adapters:
            if name not in layer.lora_A:
                continue
            for part in ("lora_A", "lora_B"):
                weights[name].append((f"{path}.{part}", getattr(layer, part)[name].weight))
            # peft keeps the scale times alpha / rank (LoraLayer.set_scale)
            unit = layer.lora_alpha[name] / layer.r[name]
            scales[name].add(round(float(layer.scaling[name] / unit), 6))
    return [
        {
            "kind": "lora",
            "name": name,
            "scale": _one(sorted(scales[name])),
            "fingerprint": fingerprints.of_weights(f"lora {name}", of),
        }
        for name, of in sorted(weights.items())
    ]


def _ip_adapters(denoiser: Any, fingerprints: Fingerprints) -> list[dict[str, Any]]:
    processors = {
        name: processor
        for name, processor in getattr(denoiser, "attn_processors", {}).items()
        if hasattr(processor, "to_k_ip")
    }
    if not processors:
        return []
    count = len(next(iter(processors.values())).to_k_ip)
    found = []
    for i in range(count):
        scales = [processor.scale[i] for processor in processors.values()]
        same = all(scale == scales[0] for scale in scales)
        of = [
            (f"{name}.{part}", getattr(processor, part)[i].weight)
            for name, processor in processors.items()
            for part in ("to_k_ip", "to_v_ip")
        ]
        found.append(
            {
                "kind": "ip_adapter",
                "name": str(i),
                "scale": scales[0]
                if same
                else dict(zip(map(_layer, processors), scales, strict=True)),
                "fingerprint": fingerprints.of_weights(f"ip_adapter {i}", of),
            }
        )
    return found


def _layer(name: str) -> str:
    return re.sub(r"\.processor$", "", name)


def _one(values: list[float]) -> Any:
    return values[0] if len(values) == 1 else values
