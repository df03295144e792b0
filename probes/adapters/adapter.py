"""What a study asks of an adapter: settings from which its models are planned, checked and loaded."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
from pydantic import ConfigDict
from torch import nn

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.adapters.loaded import Loaded
from stepscope.probes.adapters.window import Window, WindowUnit, checked_window, steps_inside
from stepscope.probes.faces import Face, Finder
from stepscope.probes.weights import weight_files

Reads = Literal["face", "picture"]
"""What an adapter reads in a file of `faces`: the largest face, or the whole picture."""


@dataclass(frozen=True)
class RunFacts:
    """What an adapter must know of the run that it is loaded for.

    family: of the backbone. distillation: of the backbone, None for none. width, height: pixels.
    control_image: see `Study`.
    """

    family: str
    dtype: torch.dtype
    device: str
    width: int
    height: int
    control_image: str | None = None
    control_image_kind: Literal["photo", "keypoints"] = "photo"
    distillation: str | None = None


def _weights(root: Path) -> list[Path]:
    return list(weight_files(root).values())


@dataclass(frozen=True)
class ModelPlace:
    """A model of an adapter, and where it lies.

    key: the setting that names it, `path`. find: its folder or file on this machine, without a download;
    raises WeightsError. files: those of its weights. cast: whether it is loaded in the backbone's dtype.
    held: whether it stays in the device's memory while samples are made. words: what the way to get it is
    completed with. faces: whether only faces that are given as pictures need it.
    """

    role: str
    key: str
    place: str
    find: Callable[[], Path]
    files: Callable[[Path], Sequence[Path]] = _weights
    cast: bool = True
    held: bool = True
    words: Mapping[str, str] = field(default_factory=dict)
    faces: bool = False


@runtime_checkable
class Reader(Protocol):
    """Reads the files of `faces` as an adapter needs them."""

    def read(self, name: str, path: Path) -> Face:
        """Raises StepscopeError for a file that it cannot use."""
        ...


class Part(NamedTuple):
    """A part of an adapter with a scale and a window of its own; `key` begins the names of its settings."""

    key: str
    scale: Any
    window: Window
    unit: WindowUnit

    def steps(self, sigmas: Sequence[float]) -> list[int]:
        """The steps, counted from 0, in which it adds something."""
        return steps_inside(self.window, self.unit, sigmas) if self.scale != 0 else []


@dataclass(frozen=True)
class Adapter(ABC):
    """Settings of an adapter; each kind adds its own, which are the keys of its YAML.

    name: in figures. path: hub id, folder or file. scale: alpha, the factor of all that it adds. window:
    where it is active, (start, end) in `window_unit`: `fraction` of the run as diffusers counts it for
    ControlNets, `step` with start <= step < end, or `sigma` with start >= sigma > end.
    """

    name: str
    path: str
    scale: float | dict[str, Any] = 1.0
    window: tuple[float, float] = (0.0, 1.0)
    window_unit: WindowUnit = "fraction"

    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}
    KIND: ClassVar[str]
    FAMILIES: ClassVar[tuple[str, ...]]
    """Families of the backbones that it is made for."""
    READS: ClassVar[Reads | None] = None
    IN_NEGATIVE: ClassVar[bool] = True
    """Whether it runs in the negative pass of classifier-free guidance."""
    FILLS: ClassVar[tuple[str, ...]] = ()
    """What it brings of which a pipeline holds one: `a ControlNet`, `an image prompt`."""
    PLACES: ClassVar[Mapping[str, str]] = {"path": "adapter"}
    """Settings that say where a model lies, each with the model's role."""

    def __post_init__(self) -> None:
        for key, scale, window, unit in self.parts:
            if unit not in get_args(WindowUnit):
                known = nearest(unit, get_args(WindowUnit))
                raise StepscopeError(f"adapter.{key}window_unit={unit!r}; {known}")
            window = checked_window(f"adapter.{key}window", window, unit)
            object.__setattr__(self, f"{key}window", window)
            if isinstance(scale, float | int) and not isfinite(scale):
                raise StepscopeError(f"adapter.{key}scale={scale} is not finite")

    def check(self, facts: RunFacts, faces: Sequence[str]) -> None:
        """Raise StepscopeError for a run that it cannot be used in. faces: files, as they are named."""
        if facts.family not in self.FAMILIES:
            raise StepscopeError(
                f"adapter={self.KIND} is made for {' and '.join(self.FAMILIES)}, and the backbone is of "
                f"the family {facts.family}"
            )

    @property
    def reads(self) -> Reads | None:
        """What it reads in a file of `faces`; None for nothing."""
        return self.READS

    @property
    def from_embedding(self) -> bool:
        """Whether a unit-norm embedding of a face, which a run holds, is all that it reads of a file."""
        return self.reads is None

    @property
    def adds_as(self) -> tuple[str, ...]:
        """Patterns of the names that it has along `injection`, the coordinate `injection_adapter`."""
        filled = {"a ControlNet": "controlnet", "an image prompt": "ip_adapter:*"}
        return tuple(filled[what] for what in self.FILLS) or (self.KIND,)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What can be switched on and off apart; one where it adds in one way."""
        return (Part("", self.scale, self.window, self.window_unit),)

    @property
    def handing(self) -> Part:
        """The part whose values are the sites `<block>.adapter`: its ControlNet's, where it brings one."""
        return self.parts[-1]

    @property
    def is_on(self) -> bool:
        """Whether it adds anything where its windows are open."""
        return any(part.scale != 0 for part in self.parts)

    @property
    def strength(self) -> float:
        """Its scale in one number, to which other scales are set in proportion; 1 for one of each block."""
        return float(self.scale) if isinstance(self.scale, float | int) else 1.0

    def off(self) -> "Adapter":
        """The same adapter, adding nothing."""
        return replace(self, **{f"{part.key}scale": 0.0 for part in self.parts})

    def always_on(self) -> "Adapter":
        """The same adapter in every step."""
        whole: dict[str, Any] = {}
        for part in self.parts:
            whole |= {f"{part.key}window": (0.0, 1.0), f"{part.key}window_unit": "fraction"}
        return replace(self, **whole)

    def steps_on(self, sigmas: Sequence[float]) -> list[int]:
        """The steps, counted from 0, in which it is active."""
        found = {step for part in self.parts for step in part.steps(sigmas)}
        return sorted(found) if self.is_on else []

    def doubt(self, face: Face, facts: RunFacts) -> str:
        """What is doubtful about a face that it reads; empty for nothing."""
        return ""

    def notes(self, denoiser: Callable[[], nn.Module]) -> Iterator[str]:
        """What is worth knowing before a run, without a mistake. denoiser: makes one without weights."""
        yield from ()

    @abstractmethod
    def models(self) -> list[ModelPlace]:
        """Every model that it loads."""

    def skeleton(self, facts: RunFacts) -> nn.Module | None:
        """Its ControlNet without weights, from configurations alone; None if it has none.

        Raises WeightsError.
        """
        return None

    def on_skeleton(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        """While it lasts, a denoiser without weights holds the adapter: places and sites can be read."""
        return nullcontext()

    @abstractmethod
    def load(self, facts: RunFacts) -> Loaded:
        """Its models. Raises WeightsError for what is missing, damaged, or made for another backbone."""

    def reader(self, device: str) -> Reader | None:
        """Who reads its files of `faces`; None if it reads none."""
        return None

    def finder(self, device: str) -> Finder | None:
        """Who finds the face in a photo; None where none is looked for."""
        return None
