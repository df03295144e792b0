"""LoRA (Hu et al. 2021, arXiv 2106.09685): low-rank parts of a denoiser's layers, by diffusers and peft."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from torch import nn

from stepscope.hooks.clock import Listener, denoiser_of, listening
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.fingerprint import tuner_layers
from stepscope.probes.adapters.adapter import Adapter, Loaded, ModelPlace, RunFacts, Steps
from stepscope.probes.weights import WeightsError, explained, file


@dataclass(frozen=True)
class LoraSettings(Adapter):
    """A LoRA in any layout that diffusers reads.

    path: the file of weights, on this machine or `OWNER/NAME/FILE` of the hub. scale: the factor of its
    low-rank part, beside alpha / rank of its file. Layers of the text encoders have the scale for the whole
    run: a window opens and closes those of the denoiser.
    """

    scale: float = 1.0
    kind: Literal["lora"] = "lora"

    KIND: ClassVar[str] = "lora"
    FAMILIES: ClassVar[tuple[str, ...]] = ("sd15", "sdxl", "flux")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name.isidentifier():
            raise StepscopeError(f"adapter.name={self.name!r}: letters, digits and _ name a LoRA")

    def models(self) -> list[ModelPlace]:
        return [
            ModelPlace(
                "adapter",
                "path",
                self.path,
                lambda: file(self.path, "adapter", download=False),
                files=lambda path: [path],
            )
        ]

    @contextmanager
    def on_skeleton(self, denoiser: nn.Module) -> Iterator[None]:
        skeleton: Any = denoiser
        with explained(self.path, "adapter"):
            load_into(skeleton, file(self.path, "adapter"), self.name)
        check_held(skeleton, self.name, self.path)
        try:
            yield
        finally:
            skeleton.delete_adapters(self.name)

    def load(self, facts: RunFacts) -> Loaded:
        return LoadedLora(self.name, self.path, file(self.path, "adapter"))


@dataclass
class LoadedLora(Loaded):
    """A LoRA's file, and once it is attached its layers: of the denoiser, and of the text encoders."""

    name: str
    place: str
    path: Path
    layers: Sequence[Any] = ()
    of_text: Sequence[Any] = ()

    def attach(self, pipe: Any) -> None:
        with explained(self.place, "adapter"):
            folder, name = str(self.path.parent), self.path.name
            pipe.load_lora_weights(folder, weight_name=name, adapter_name=self.name)
        denoiser = denoiser_of(pipe)
        self.layers = check_held(denoiser, self.name, self.place)
        texts = (getattr(pipe, part, None) for part in ("text_encoder", "text_encoder_2"))
        self.of_text = [
            layer for text in texts if text is not None for layer in held(text, self.name)
        ]

    @contextmanager
    def hooked(self, adapter: LoraSettings, pipe: Any, steps: Steps) -> Iterator[None]:
        inside = {step - steps.first for step in adapter.steps_on(steps.sigmas)}
        with ExitStack() as stack:
            for layer in [*self.layers, *self.of_text]:
                stack.callback(layer.set_adapter, list(layer.active_adapters))
                stack.callback(layer.scaling.__setitem__, self.name, layer.scaling[self.name])
                layer.set_scale(self.name, adapter.scale)
                switch(layer, self.name, on=adapter.is_on)
            clock = stack.enter_context(listening(pipe, Listener()))

            def gate(module: nn.Module, args: Any) -> None:
                for layer in self.layers:
                    switch(layer, self.name, on=clock.step in inside)

            handle = denoiser_of(pipe).register_forward_pre_hook(gate)
            stack.callback(handle.remove)
            yield


def load_into(denoiser: Any, path: Path, name: str) -> None:
    """Put the denoiser's part of a file into a denoiser, as its pipeline's `load_lora_weights` does."""
    if isinstance(denoiser, FluxTransformer2DModel):
        state, alphas = FluxPipeline.lora_state_dict(str(path), return_alphas=True)[:2]
        FluxPipeline.load_lora_into_transformer(
            state, alphas, denoiser, adapter_name=name, low_cpu_mem_usage=True
        )
        return
    xl = denoiser.config.addition_embed_type == "text_time"
    kind: Any = StableDiffusionXLPipeline if xl else StableDiffusionPipeline
    state, alphas = kind.lora_state_dict(str(path), unet_config=denoiser.config)[:2]
    kind.load_lora_into_unet(state, alphas, denoiser, adapter_name=name, low_cpu_mem_usage=True)


def held(network: nn.Module, name: str) -> list[Any]:
    """The layers of a network that hold a LoRA of this name."""
    layers = tuner_layers(network.named_modules()).values()
    return [layer for layer in layers if name in getattr(layer, "lora_B", {})]


def check_held(denoiser: nn.Module, name: str, place: str) -> list[Any]:
    """The same of a denoiser. Raises WeightsError where there is none: diffusers only warns of it."""
    found = held(denoiser, name)
    if not found:
        raise WeightsError(
            f"adapter {place!r} has nothing for a layer of {type(denoiser).__name__}: it is no LoRA, or "
            "another backbone's"
        )
    return found


def switch(layer: Any, name: str, *, on: bool) -> None:
    """Let a LoRA run in a layer or leave it out, without its product; the others stay as they are."""
    active = [one for one in layer.lora_B if one in layer.active_adapters or (on and one == name)]
    if not on:
        active = [one for one in active if one != name]
    if active != layer.active_adapters:
        layer.set_adapter(active)
