"""Layers that hold a LoRA: put there from a file, and let run or left out, step by step."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors import safe_open
from torch import Tensor, nn

from stepscope.hooks.clock import Listener, denoiser_of, listening
from stepscope.hooks.compiled import before
from stepscope.hooks.fingerprint import tuner_layers
from stepscope.probes.weights import WeightsError

State = dict[str, Tensor]
PARTS = ("transformer", "unet")
END = ".lora_B.weight"
HALVES = ((".lora_A.", ".lora_B."), (".lora_down.", ".lora_up."), (".lora.down.", ".lora.up."))
"""How the two matrices of a layer are named, in the layouts that are known."""


def check_whole(path: Path, place: str) -> None:
    """Raise WeightsError for a file of which diffusers would leave out what changes every layer."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as opened:
            names = list(opened.keys())
    else:
        names = list(torch.load(path, map_location="meta", weights_only=True))
    for name in map(str, names):
        for a, b in HALVES:
            for one, other in ((a, b), (b, a)):
                if one in name and name.replace(one, other) not in names:
                    raise WeightsError(f"adapter {place!r} has {name} and lacks its other matrix")
    if any("dora_scale" in str(name) for name in names):
        raise WeightsError(
            f"adapter {place!r} is a DoRA in kohya's layout: diffusers reads no `dora_scale`, and would "
            "run it as another LoRA. Name one in peft's layout, with `lora_magnitude_vector`"
        )


def left_out(denoiser: Any, path: Path, name: str) -> list[str]:
    """The layers that a file holds a LoRA for and a denoiser does not have: diffusers goes on without."""
    state = load_into(denoiser, path, name)
    try:
        own = {k: v for k, v in state.items() if k.startswith(PARTS)}
        own = convert_unet_state_dict_to_peft(own)
        asked = {k.removesuffix(END).partition(".")[2] for k in own if k.endswith(END)}
        return sorted(asked - {*held_in(denoiser, name)})
    finally:
        denoiser.delete_adapters(name)


def load_into(denoiser: Any, of: Path | State, name: str) -> State:
    """Put the denoiser's part of a file into a denoiser, as its pipeline's `load_lora_weights` does.

    Returns the weights of the file, as diffusers names them.
    """
    given: Any = of if isinstance(of, dict) else str(of)
    if isinstance(denoiser, FluxTransformer2DModel):
        state, alphas = FluxPipeline.lora_state_dict(given, return_alphas=True)[:2]
        FluxPipeline.load_lora_into_transformer(
            state, alphas, denoiser, adapter_name=name, low_cpu_mem_usage=True
        )
        return state
    xl = denoiser.config.addition_embed_type == "text_time"
    kind: Any = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    state, alphas = kind.lora_state_dict(given, unet_config=denoiser.config)[:2]
    kind.load_lora_into_unet(state, alphas, denoiser, adapter_name=name, low_cpu_mem_usage=True)
    return state


def held(network: nn.Module, name: str) -> list[Any]:
    """The layers of a network that hold a LoRA of this name."""
    return list(held_in(network, name).values())


def held_in(network: nn.Module, name: str) -> dict[str, Any]:
    """The same by their paths."""
    layers = tuner_layers(network.named_modules())
    return {path: one for path, one in layers.items() if name in getattr(one, "lora_B", {})}


@contextmanager
def gated(
    pipe: Any,
    name: str,
    layers: Sequence[Any],
    *,
    scale: float,
    inside: Collection[int],
    of_text: Sequence[Any] = (),
) -> Iterator[None]:
    """Let a LoRA run in some steps of a call, counted from its first; elsewhere it costs nothing.

    layers: of the denoiser. scale: the factor of its product; at 0 it never runs. of_text: layers of text
    encoders, which run before the steps. All of it is as before at the end.
    """
    with ExitStack() as stack:
        for layer in [*layers, *of_text]:
            stack.callback(layer.set_adapter, list(layer.active_adapters))
            stack.callback(layer.scaling.__setitem__, name, layer.scaling[name])
            layer.set_scale(name, scale)
            switch(layer, name, on=scale != 0)
        clock = stack.enter_context(listening(pipe, Listener()))
        now = scale != 0

        def gate(module: nn.Module, args: Any) -> None:
            nonlocal now
            wanted = scale != 0 and clock.step in inside
            if wanted != now:
                now = wanted
                for layer in layers:
                    switch(layer, name, on=now)

        handle = before(denoiser_of(pipe), gate, outside=True)
        stack.callback(handle.remove)
        yield


def switch(layer: Any, name: str, *, on: bool) -> None:
    """Let a LoRA run in a layer or leave it out, without its product; the others stay as they are."""
    active = [one for one in layer.lora_B if one in layer.active_adapters or (on and one == name)]
    if not on:
        active = [one for one in active if one != name]
    if active != layer.active_adapters:
        layer.set_adapter(active)
