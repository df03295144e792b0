"""A place where an adapter adds to a denoiser, and the protocol of who sees how much it adds there."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.clock import Clock
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import Observer


class Injection(NamedTuple):
    """A place of one adapter.

    adapter: `controlnet`, or kind and name as the coordinate `adapters` has them: `ip_adapter:0`,
        `lora:style`. block: the denoiser's block; of a U-Net's ControlNet `skip.03` or `mid`; of layers
        that are in no block `outside`. stream: whose tokens it adds to.
    """

    adapter: str
    block: str
    stream: str

    @property
    def name(self) -> str:
        """Its label along the axis `injection`: `double.07.image.controlnet`."""
        return f"{self.block}.{self.stream}.{self.adapter}"


@runtime_checkable
class Source(Protocol):
    """Sees what adapters add at some places, while a clock runs.

    injections: the places.
    """

    @property
    def injections(self) -> Sequence[Injection]: ...

    def reset(self) -> None:
        """Start a pipeline call: nothing has been seen."""
        ...

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        """Lay hooks that only read; the caller removes the handles."""
        ...

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        """|added| / |what it is added to| of each pass that ran, (injection, row of the batch).

        0 where nothing is added, NaN where it was not seen. seen: the denoiser's observer.
        """
        ...


def rows_of(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """The latents that a denoiser is called with: their first axis is the pass's rows."""
    return args[0] if args else next(iter(kwargs.values()))


def over(added: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Norms of what is added over norms of what it is added to; 0 where nothing is added."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(added == 0, np.float32(0), added / base)
