"""What a tool's own adapter adds, as it declares it: modules that hooks run, which no finder can know."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.clock import Clock, denoiser_of
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.injections.injection import Injection, over
from stepscope.hooks.injections.meter import Meter, lay
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import Observer

Part = Callable[[tuple[Any, ...], Mapping[str, Any], Any], torch.Tensor | None]
"""From what a module was called with and what it returned to a tensor (row of the batch, ...)."""


def returned(args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
    """What a module returns is what is added: `edit` can change it."""
    return output


@dataclass(frozen=True)
class Declared:
    """One place of an adapter, and the module whose calls tell what is added there.

    adapter, block, stream: as `Injection` has them. module: one that runs inside each pass of the denoiser
    in which the adapter adds something. added: what is added, already scaled; None where it is nothing.
    base: what it is added to.

    Where `added` is `returned`, and the module returns (row, token, channel), `edit` can change it, by the
    place's name or as `<block>.adapter`, and `Capture("full", sites=...)` keeps it whole.
    """

    adapter: str
    block: str
    stream: str
    module: nn.Module
    added: Part
    base: Part

    @property
    def place(self) -> Injection:
        return Injection(self.adapter, self.block, self.stream)

    @property
    def editable(self) -> bool:
        """Whether an edit can change what is added."""
        return self.added is returned


_DECLARED: WeakKeyDictionary[nn.Module, list[Declared]] = WeakKeyDictionary()


@contextmanager
def declare(pipe: Any, places: Sequence[Declared]) -> Iterator[None]:
    """Tell `record` where an adapter adds to a pipeline's denoiser, for as long as the `with` lasts.

    pipe: the pipeline or its denoiser. Each pass in which a place's module does not run adds 0 there.
    Raises StepscopeError where two declarations are of one place.
    """
    denoiser = pipe if isinstance(pipe, nn.Module) else denoiser_of(pipe)
    known = _DECLARED.setdefault(denoiser, [])
    taken = {one.place for one in known}
    for one in places:
        if one.place in taken:
            raise StepscopeError(f"{one.place.name} is declared already: name another adapter")
        taken.add(one.place)
    known += places
    try:
        yield
    finally:
        known[:] = [one for one in known if not any(one is mine for mine in places)]


def declared_of(denoiser: nn.Module) -> list[Declared]:
    """What is declared of a denoiser now."""
    return list(_DECLARED.get(denoiser, ()))


def as_declared(denoiser: nn.Module, network: nn.Module | None) -> "Places | None":
    """Of a denoiser whose adapters declare what they add."""
    found = declared_of(denoiser)
    return Places(found) if found else None


class Places:
    """Norms of what the modules' calls tell."""

    def __init__(self, places: Sequence[Declared]) -> None:
        self._places = list(places)
        self.injections = [one.place for one in self._places]
        self._meter = Meter(2 * len(self._places))

    def reset(self) -> None:
        self._meter.reset()

    def attach(self, clock: Clock, denoiser: nn.Module) -> list[RemovableHandle]:
        handles = self._meter.attach(clock, denoiser)
        return handles + [lay(one.module, self._see(i, one)) for i, one in enumerate(self._places)]

    def _see(self, index: int, one: Declared) -> Callable[..., None]:
        def see(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if not self._meter.open:
                return
            added = one.added(args, kwargs, output)
            base = None if added is None else one.base(args, kwargs, output)
            if added is None or base is None:
                self._meter.leave_blank(index)
                return
            self._meter.put(index, added)
            self._meter.put(len(self._places) + index, base)

        return see

    def ratios(self, seen: Observer) -> Mapping[Place, np.ndarray]:
        count, found = len(self._places), {}
        for place, norms in self._meter.read().items():
            added = norms[:count]
            added[~self._meter.was_put(place)[:count]] = 0
            found[place] = over(added, norms[count:])
        return found
