"""What LoRAs add to the outputs of a denoiser's layers: scaling times B(A x), over the layer's own W x.

peft adds it in each layer (peft/tuners/lora/layer.py, `forward`), so nothing is computed again: the outputs
of `lora_B` and of the layer itself are seen as they pass. A kin that is not such a sum (DoRA, LoKr) and a
LoRA that was fused into the weights are not measured.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks import compiled
from stepscope.hooks.clock import Clock
from stepscope.hooks.families import blocks_of, family_of
from stepscope.hooks.fingerprint import tuner_layers
from stepscope.hooks.injections.injection import Injection, over
from stepscope.hooks.injections.meter import Meter, lay
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import Observer
from stepscope.hooks.order import reading

OUTSIDE = "outside"
_OF_TEXT = re.compile(r"context|\badd_|to_add_out|txt_|attn2\.to_[kv]\b")
"""Layers that read the text's tokens, by their paths: of joint blocks, and of cross-attentions."""

Key = tuple[str, str]
"""A block and a stream."""


def in_layers(denoiser: nn.Module, network: nn.Module | None) -> "Layers | None":
    """Of a denoiser with LoRAs that are not fused."""
    found = {
        path: layer
        for path, layer in tuner_layers(denoiser.named_modules()).items()
        if hasattr(layer, "lora_B") and not layer.merged and layer.lora_B.keys()
    }
    return Layers(denoiser, found) if found else None


class Layers:
    """Of each LoRA, block and stream, over all its layers there: sqrt(sum |s B A x|^2) / sqrt(sum |W x|^2).

    A single-stream block's layers read [text; image], which are told apart. Text is with its padding. What
    has no token of its own (a modulation) is counted with the image.

    layers: by their paths in the denoiser.
    """

    def __init__(self, denoiser: nn.Module, layers: Mapping[str, Any]) -> None:
        self.layers, self._family = layers, family_of(denoiser)
        self._text = 0
        blocks = {block.module: block for block in blocks_of(denoiser)}
        paths = {
            path: blocks[module] for path, module in denoiser.named_modules() if module in blocks
        }
        self._joint = {p for p, block in paths.items() if block.kind == "single"}
        self._blocks = {path: block.name for path, block in paths.items()}
        self._added: dict[Injection, list[int]] = defaultdict(list)
        self._base: dict[Injection, list[int]] = defaultdict(list)
        self._slots: dict[tuple[str, str, str], int] = {}
        for path, layer in layers.items():
            for name in layer.lora_B:
                for place in self.places(path, name):
                    self._added[place].append(self._slot(path, name, place.stream))
                    self._base[place].append(self._slot(path, "", place.stream))
        order = {block.name: i for i, block in enumerate(blocks.values())}
        self.injections = sorted(
            self._added, key=lambda one: (one.adapter, order.get(one.block, len(order)), one.stream)
        )
        self._meter = Meter(len(self._slots))

    def places(self, path: str, name: str) -> list[Injection]:
        """Where a LoRA adds through a layer: for each stream that the layer reads."""
        if name in self.layers[path].lora_variant:
            return []
        within = next((p for p in self._blocks if path.startswith(f"{p}.")), "")
        streams = ("image", "text") if within in self._joint else (stream_of(path),)
        return [Injection(f"lora:{name}", self._blocks.get(within, OUTSIDE), s) for s in streams]

    @property
    def matrices(self) -> list[tuple[str, str]]:
        """The path of each layer and the name of each LoRA in it."""
        return [(path, name) for path, layer in self.layers.items() for name in layer.lora_B]

    def parts(
        self, path: str, name: str, output: torch.Tensor, text: int
    ) -> Iterator[tuple[Injection, torch.Tensor]]:
        """What a LoRA makes in a layer, before its scaling, as views (row, token, channel) for each place.

        text: tokens of the text, which stand first where a layer reads both.
        """
        places = self.places(path, name)
        tokens = output[:, None] if output.ndim == 2 else output
        for place in places:
            if len(places) == 1:
                yield place, tokens
            elif output.ndim > 2:
                yield place, tokens[:, text:] if place.stream == "image" else tokens[:, :text]
            elif place.stream == "image":
                yield place, tokens

    def _slot(self, path: str, name: str, stream: str) -> int:
        return self._slots.setdefault((path, name, stream), len(self._slots))

    def reset(self) -> None:
        self._meter.reset()

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if self._meter.open:
                self._text = self._family.tokens(args, kwargs).context

        handles = self._meter.attach(clock, denoiser)
        handles.append(compiled.before(denoiser, reading(before), with_kwargs=True, outside=True))
        for path, layer in self.layers.items():
            handles.append(lay(layer.base_layer, self._see(path, "", lambda: 1.0)))
            for name, matrix in layer.lora_B.items():
                if name not in layer.lora_variant:
                    hook = self._see(path, name, lambda layer=layer, name=name: layer.scaling[name])
                    handles.append(lay(matrix, hook))
        return handles

    def _see(self, path: str, name: str, scaling: Callable[[], float]) -> Callable[..., None]:
        slots = {
            s: self._slots[path, name, s]
            for s in ("image", "text")
            if (path, name, s) in self._slots
        }

        def see(module: nn.Module, args: Any, kwargs: dict[str, Any], output: torch.Tensor) -> None:
            if not self._meter.open:
                return
            for stream, slot in slots.items():
                part = output
                if len(slots) == 2 and output.ndim > 2:
                    part = output[:, self._text :] if stream == "image" else output[:, : self._text]
                elif len(slots) == 2 and stream == "text":
                    self._meter.leave_blank(slot)
                    continue
                self._meter.put(slot, part, float(scaling()))

        return see

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        found = {}
        for place, norms in self._meter.read().items():
            put = self._meter.was_put(place)
            ratios = []
            for one in self.injections:
                added, base = norms[self._added[one]], norms[self._base[one]]
                # the layer ran, and its LoRA did not: it is off
                off = put[self._base[one]] & ~put[self._added[one]]
                added[off] = 0
                ratios.append(over(_whole(added), _whole(base)))
            found[place] = np.stack(ratios)
        return found


def stream_of(path: str) -> str:
    """Whose tokens a layer reads, by its path in the denoiser; `image` where nothing says `text`."""
    return "text" if _OF_TEXT.search(path) else "image"


def _whole(norms: np.ndarray) -> np.ndarray:
    """The norm over several layers, (row of the batch,)."""
    return np.sqrt(np.square(norms.astype(np.float64)).sum(0)).astype(np.float32)
