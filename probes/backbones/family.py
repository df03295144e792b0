"""What a study asks of a backbone, whatever family it is of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from pydantic import ConfigDict
from torch import Tensor, nn

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.hooks.vocabulary import BRANCHES

Dtype = Literal["float32", "bfloat16", "float16"]
# a key that is none of ours is a mistake, also after a plus
ONLY: ConfigDict = {"extra": "forbid"}


def one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raise StepscopeError, with the nearest, for a value that is not known."""
    if value not in known:
        raise StepscopeError(f"{name}={value!r}; {nearest(value, known)}")


@dataclass(frozen=True)
class Backbone:
    """A denoiser with its text encoders, VAE and scheduler.

    name: in figures. path: a hub id, a local folder in diffusers' layout, or a single file of weights.
    family: `flux`, `sd15` or `sdxl`. base: of a single file, the hub id or folder that has the rest
    (configurations, text encoders, scheduler).
    distillation: how a few-step Stable Diffusion was distilled, see `distilled.py`; it decides the
    scheduler. weights: its own U-Net or LoRA, a folder or a file, on the backbone at `path`.
    scheduler: the class of diffusers in place of the folder's own.
    de_distilled: FLUX weights without a guidance embedding that belong under dev's schedule.
    """

    name: str
    path: str
    dtype: Dtype
    family: str = "flux"
    base: str | None = None
    distillation: str | None = None
    weights: str | None = None
    scheduler: str | None = None
    de_distilled: bool = False

    __pydantic_config__ = ONLY

    def __post_init__(self) -> None:
        one_of("backbone.dtype", self.dtype, get_args(Dtype))


class Outline(NamedTuple):
    """A backbone without weights, and the sizes of a run with it.

    latent: (channel, y, x) of the unpacked latents. image: (row, column) in pixels. grid: rows and columns
    of image tokens at the denoiser's edge. streams: those of its attentions. shape: (token, channel) of a
    site.
    """

    denoiser: nn.Module
    latent: tuple[int, int, int]
    image: tuple[int, int]
    grid: tuple[int, int]
    streams: tuple[str, ...]
    shape: Callable[[str], tuple[int, int]]


@runtime_checkable
class Sizes(Protocol):
    """What of a study decides its sizes and its schedule; see `Study`."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def steps(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def max_sequence_length(self) -> int: ...
    @property
    def guidance(self) -> float | None: ...
    @property
    def true_cfg(self) -> float: ...
    @property
    def negative_prompt(self) -> str | None: ...


@runtime_checkable
class BackboneFamily(Protocol):
    """Everything that probes must know of a family of backbones."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """Its name in messages."""
        ...

    @property
    def longest_text(self) -> int:
        """Text tokens that it reads at most."""
        ...

    def folder(self, backbone: Backbone, *, download: bool = True, settings: bool = False) -> Path:
        """Where its parts lie on this machine; settings: configurations alone. Raises WeightsError."""
        ...

    def files(self, backbone: Backbone) -> dict[str, Path]:
        """Files of its weights on this machine, by role, `weights` aside. Raises WeightsError."""
        ...

    def load(self, backbone: Backbone, device: str, components: Mapping[str, Any]) -> Any:
        """A pipeline on the device, without its bars. components: `controlnet`, if an adapter brings one.

        Raises WeightsError for weights that are missing or gated, StepscopeError for a mixture of one
        backbone's weights with another's schedule.
        """
        ...

    def outline(self, study: Sizes, folder: Path) -> Outline:
        """From configurations alone. Raises StepscopeError for sizes that it cannot make."""
        ...

    def sigmas(self, study: Sizes, pipe: Any) -> Tensor:
        """Noise levels at the start of each of the run's steps, (step,), as a run stores them."""
        ...

    def planned_sigmas(self, study: Sizes, folder: Path) -> list[float]:
        """The same from configurations alone."""
        ...

    def arguments(self, study: Sizes, pipe: Any) -> dict[str, Any]:
        """The pipeline's arguments that are the same for every batch, adapters aside.

        Raises StepscopeError for a setting without which it cannot run.
        """
        ...

    def negative(self, study: Sizes, rows: int) -> list[str] | None:
        """The negative prompt of each row, None to give none."""
        ...

    def packed(self, latents: Tensor) -> Tensor:
        """Latents (row, channel, y, x) as its scheduler steps them."""
        ...

    def starting(self, pipe: Any) -> AbstractContextManager[None]:
        """While it lasts, the latents that a call is given are x_t of its first step, and no unit noise."""
        ...

    def unpacked(self, latents: Tensor, sides: Sequence[int]) -> Tensor:
        """The inverse of `packed`, (..., channel, y, x). sides: (y, x)."""
        ...

    def text_tokens(self, pipe: Any, texts: Sequence[str], longest: int) -> list[int]:
        """Tokens of each text without padding."""
        ...

    def notes(self, study: Sizes, folder: Path) -> Iterator[str]:
        """Settings that change nothing, or what is made, without a mistake."""
        ...


def planned_branches(study: Sizes) -> tuple[str, ...]:
    """Branches of a step, in the order of `BRANCHES`: two with classifier-free guidance."""
    return BRANCHES[: 2 if study.true_cfg > 1 else 1]
