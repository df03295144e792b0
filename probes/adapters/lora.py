"""LoRA (Hu et al. 2021, arXiv 2106.09685): low-rank parts of a denoiser's layers, by diffusers and peft."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.adapters.adapter import Adapter, ModelPlace, RunFacts
from stepscope.probes.adapters.loaded import Loaded, Steps
from stepscope.probes.adapters.lora_layers import check_whole, gated, held, left_out, load_into
from stepscope.probes.backbones.distilled import DISTILLATIONS, distilled_by
from stepscope.probes.weights import WeightsError, explained, file

OF_TEXT = ("text_encoder.", "text_encoder_2.")
"""How the names of a text encoder's layers begin, as diffusers has them."""


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

    def check(self, facts: RunFacts, faces: Sequence[str]) -> None:
        super().check(facts, faces)
        word = distilled_by(self.path)
        if facts.family != "flux" and word not in (None, facts.distillation):
            raise StepscopeError(
                f"adapter.path={self.path!r} is {word} by its name, which steps with "
                f"{DISTILLATIONS[word].scheduler}: backbone.distillation={word} "
                f"backbone.weights={self.path}"
            )

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
            state = load_into(skeleton, path, self.name)
        if not held(skeleton, self.name):
            self._check_of_text(skeleton, state)
        try:
            yield
        finally:
            skeleton.delete_adapters(self.name)

    def _check_of_text(self, denoiser: nn.Module, state: Mapping[str, Any]) -> None:
        """Raise for a file that has nothing for the denoiser, unless all of it is of text encoders."""
        if not any(name.startswith(OF_TEXT) for name in state):
            raise WeightsError(nothing_held(self.path, denoiser))
        if (self.window, self.window_unit) != ((0.0, 1.0), "fraction"):
            raise StepscopeError(
                f"adapter {self.path!r} is of text encoders alone, which run before the first step: leave "
                "adapter.window out"
            )

    def notes(self, denoiser: Callable[[], nn.Module]) -> Iterator[str]:
        bare = denoiser()
        lost = left_out(bare, file(self.path, "adapter"), self.name)
        if lost:
            more = "" if len(lost) == 1 else f" and {len(lost) - 1} more of its layers"
            yield (
                f"the backbone has no {lost[0]}{more}, and adapter {self.path!r} runs without: it may be "
                "another backbone's"
            )
        with self.on_skeleton(bare):
            of_blocks = held(bare, self.name)
        if not of_blocks:
            yield (
                f"adapter {self.path!r} is of text encoders alone: it adds nothing in a block, and the run "
                "says nothing of it in `contribution`"
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
        self.layers = held(denoiser, self.name)
        texts = (getattr(pipe, part, None) for part in ("text_encoder", "text_encoder_2"))
        self.of_text = [
            layer for text in texts if text is not None for layer in held(text, self.name)
        ]
        if not self.layers and not self.of_text:
            raise WeightsError(nothing_held(self.place, denoiser))

    def hooked(
        self, adapter: LoraSettings, pipe: Any, steps: Steps
    ) -> AbstractContextManager[None]:
        inside = {step - steps.first for step in adapter.steps_on(steps.sigmas)}
        scale, of_text = adapter.scale, self.of_text
        return gated(pipe, self.name, self.layers, scale=scale, inside=inside, of_text=of_text)


def nothing_held(place: str, denoiser: nn.Module) -> str:
    """That a file has nothing for a backbone: diffusers only warns of it."""
    return (
        f"adapter {place!r} has nothing for a layer of {type(denoiser).__name__}: it is no LoRA, or "
        "another backbone's"
    )
