"""What each adapter adds to a denoiser during a call, wherever it adds it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import numpy as np
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.clock import Clock
from stepscope.hooks.compiled import exchanged
from stepscope.hooks.injections.declared import as_declared
from stepscope.hooks.injections.image_prompt import after_double_blocks, in_cross_attentions
from stepscope.hooks.injections.injection import Injection, Source
from stepscope.hooks.injections.lora import in_layers
from stepscope.hooks.injections.residuals import between_blocks, on_skips
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import Observer

Finder = Callable[[nn.Module, nn.Module | None], Source | None]
"""From a denoiser and its ControlNet, if it has one, to who sees what one kind of adapter adds."""

FINDERS: list[Finder] = [
    between_blocks,
    on_skips,
    in_cross_attentions,
    after_double_blocks,
    in_layers,
    as_declared,
]
"""Every kind of adapter that is looked for, in the order of the axis `injection`."""


def injections_of(denoiser: nn.Module, network: nn.Module | None = None) -> list[Injection]:
    """The places at which the adapters that are loaded now add to a denoiser.

    network: its ControlNet. Weights are not needed: a model on the device `meta` will do.
    """
    return [one for source in _sources(denoiser, network) for one in source.injections]


def _sources(denoiser: nn.Module, network: nn.Module | None) -> list[Source]:
    found = (find(denoiser, network) for find in FINDERS)
    return [source for source in found if source is not None]


class Contributions:
    """Sees what the adapters add that are loaded when a call begins; its hooks last as long as the call.

    seen: the denoiser's observer. fault: the first error after the first step of a call, as the observer's.
    """

    def __init__(self, denoiser: nn.Module, network: nn.Module | None, seen: Observer) -> None:
        self._denoiser, self._network, self._seen = denoiser, network, seen
        self._sources: list[Source] = []
        self._handles: list[RemovableHandle] = []
        self.fault: Exception | None = None

    @property
    def injections(self) -> list[Injection]:
        """The places, in the order of the values that are read."""
        return [one for source in self._sources for one in source.injections]

    def begin(self, clock: Clock) -> None:
        """A pipeline call begins: look for its adapters, and lay hooks."""
        self.end()
        self._sources = _sources(self._denoiser, self._network)
        for source in self._sources:
            self._handles += source.attach(clock, self._denoiser)
        for handle in self._handles:
            exchanged(handle, partial(self._sparing, clock))

    def _sparing(self, clock: Clock, hook: Callable[..., None]) -> Callable[..., None]:
        """The hook, which stops a call in its first step alone: a later error waits in `fault`."""

        @wraps(hook)  # with the mark of a hook that only reads
        def spared(*args: Any) -> None:
            if self.fault is not None:
                return
            try:
                hook(*args)
            except Exception as error:
                if clock.step == 0:
                    raise
                self.fault = error

        return spared

    def end(self) -> None:
        """The call is over: no hook is left. Its values are there until the next begins."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def reset(self) -> None:
        """The call's steps begin: nothing has been seen."""
        self.fault = None
        for source in self._sources:
            source.reset()

    def read(self) -> Mapping[Place, np.ndarray]:
        """|added| / |what it is added to| of each pass, (injection, row of the batch)."""
        each: Sequence[Mapping[Place, Any]] = [s.ratios(self._seen) for s in self._sources]
        places = {place for ratios in each for place in ratios}
        return {p: np.concatenate([ratios[p] for ratios in each]) for p in sorted(places)}
