"""Which adapters are active in a pipeline, how strongly, and which weights they are of.

LoRA and its kin sit in layers of their own (peft), an IP-Adapter in the processors of the attentions
(diffusers.loaders); both leave the pipeline's class and configuration as they were.
"""

import json
import math
import re
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.fingerprint import of_tensors, parameters_of, tuner_layers
from stepscope.hooks.laid import unwrapped


def active_adapters(pipe: Any) -> str:
    """A JSON list of `{"model", "kind", "name", "scale", "fingerprint"}`; `[]` without adapters.

    model: the component that it is in. kind: `ip_adapter`, or peft's word (`lora`, `lokr`).
    scale: what `set_adapters` or `set_ip_adapter_scale` set; a list or a mapping where layers or image
    prompts have scales of their own, null where the kind has none. A scale that the call itself is
    given is among its arguments.

    An adapter that was fused is a part of the model's weights and of their fingerprint.
    """
    found = [
        adapter
        for name, model in pipe.components.items()
        if isinstance(model, nn.Module)
        for adapter in _of_peft(name, unwrapped(model))
    ]
    return json.dumps([*found, *_ip_adapters(pipe)], sort_keys=True)


def _of_peft(model: str, network: nn.Module) -> list[dict[str, Any]]:
    weights: dict[tuple[str, str], list[tuple[str, torch.Tensor]]] = defaultdict(list)
    scales: dict[tuple[str, str], set[float | None]] = defaultdict(set)
    for path, layer in tuner_layers(network.named_modules()).items():
        if layer.disable_adapters or getattr(layer, "merged", False):
            continue
        kind = type(layer).__module__.removeprefix("peft.tuners.").split(".")[0]
        parts = {part: getattr(layer, part, {}) for part in layer.adapter_layer_names}
        for name in layer.active_adapters:
            within = [(part, held[name]) for part, held in parts.items() if name in held]
            for part, held in within:
                weights[kind, name] += parameters_of(held, f"{path}.{part}")
            if within:
                scales[kind, name].add(_scale(layer, name))
    return [
        {
            "model": model,
            "kind": kind,
            "name": name,
            "scale": _one(sorted(scales[kind, name], key=lambda s: (s is None, s))),
            "fingerprint": of_tensors(of),
        }
        for (kind, name), of in sorted(weights.items())
    ]


def _scale(layer: Any, name: str) -> float | None:
    """peft keeps it times alpha / rank (set_scale of LoraLayer and LycorisLayer)."""
    kept = getattr(layer, "scaling", {}).get(name)
    alpha = getattr(layer, "lora_alpha", getattr(layer, "alpha", {})).get(name)
    rank = getattr(layer, "r", {}).get(name)
    if kept is None or not alpha or not rank:
        return None
    stable = getattr(layer, "use_rslora", {}).get(name, False)
    return round(float(kept) / (alpha / (math.sqrt(rank) if stable else rank)), 6)


def _ip_adapters(pipe: Any) -> list[dict[str, Any]]:
    denoiser: Any = denoiser_of(pipe)
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
                "model": _component(pipe, denoiser),
                "kind": "ip_adapter",
                "name": str(i),
                "scale": scales[0]
                if same
                else dict(zip(map(_layer, processors), scales, strict=True)),
                "fingerprint": of_tensors(of),
            }
        )
    return found


def _component(pipe: Any, model: nn.Module) -> str:
    return next(name for name, part in pipe.components.items() if unwrapped(part) is model)


def _layer(name: str) -> str:
    return re.sub(r"\.processor$", "", name)


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
