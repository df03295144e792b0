"""LoRA (Hu et al. 2021, arXiv 2106.09685): low-rank parts of a denoiser's layers, by diffusers and peft."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.adapters.adapter import Adapter, Loaded, ModelPlace, RunFacts, Steps
from stepscope.probes.adapters.lora_layers import check_whole, gated, held, left_out, load_into
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

    @property
    def adds_as(self) -> tuple[str, ...]:
        return (f"lora:{self.name}",)

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
        path = file(self.path, "adapter")
        with explained(self.path, "adapter"):
            check_whole(path, self.path)
            load_into(skeleton, path, self.name)
        check_held(skeleton, self.name, self.path)
        try:
            yield
        finally:
            skeleton.delete_adapters(self.name)

    def notes(self, denoiser: Callable[[], nn.Module]) -> Iterator[str]:
        lost = left_out(denoiser(), file(self.path, "adapter"), self.name)
        if lost:
            more = "" if len(lost) == 1 else f" and {len(lost) - 1} more of its layers"
            yield (
                f"the backbone has no {lost[0]}{more}, and adapter {self.path!r} runs without: it may be "
                "another backbone's"
            )

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

    def hooked(
        self, adapter: LoraSettings, pipe: Any, steps: Steps
    ) -> AbstractContextManager[None]:
        inside = {step - steps.first for step in adapter.steps_on(steps.sigmas)}
        scale, of_text = adapter.scale, self.of_text
        return gated(pipe, self.name, self.layers, scale=scale, inside=inside, of_text=of_text)


def check_held(denoiser: nn.Module, name: str, place: str) -> list[Any]:
    """The same of a denoiser. Raises WeightsError where there is none: diffusers only warns of it."""
    found = held(denoiser, name)
    if not found:
        raise WeightsError(
            f"adapter {place!r} has nothing for a layer of {type(denoiser).__name__}: it is no LoRA, or "
            "another backbone's"
        )
    return found
