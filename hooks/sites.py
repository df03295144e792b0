"""Names for the places in a denoiser that can be read: `double.07.attention.image`."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks import compiled
from stepscope.hooks.errors import StepscopeError, nearest

QUANTITIES = ("attention", "residual")

Read = Callable[[Any, int], tuple[torch.Tensor, ...]]
"""From a module's output and the number of image tokens to its streams, each (batch, token, channel)."""

Split = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], tuple[torch.Tensor, ...]]
"""From a module, what it was called with and what it returned, to its streams."""

Hook = Callable[[nn.Module, Any, dict[str, Any], Any], Any]


@dataclass(frozen=True)
class Site:
    """One module whose output holds the streams of a quantity (attention or residual).

    given: what it is given holds them, its first argument, and not what it returns.

    read: may return fewer streams than `streams` names, and leaves out the last ones (an
        IP-Adapter's output is there only while one is loaded).
    split: instead of `read`, for an output that only another run of the module takes apart.
    """

    quantity: str
    streams: tuple[str, ...]
    module: nn.Module
    read: Read
    split: Split | None = None
    given: bool = False

    def hooked(self, hook: Hook) -> RemovableHandle:
        """Lay a hook on the site; what it returns takes the place of what holds the streams.

        hook: is given the module, its arguments, and what holds the streams.
        """
        if not self.given:
            return compiled.after(self.module, hook, with_kwargs=True)

        @wraps(hook)  # with its marks
        def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            made = hook(module, args, kwargs, args[0])
            return None if made is None else ((made, *args[1:]), kwargs)

        return compiled.before(self.module, before, with_kwargs=True)


@dataclass(frozen=True)
class Block:
    """A transformer block of the denoiser: its name, kind and index within the kind, and its sites."""

    name: str
    kind: str
    index: int
    module: nn.Module
    sites: tuple[Site, ...]

    def site_names(self) -> Iterator[str]:
        """`<block>.<quantity>.<stream>` for every stream whose whole tensor can be kept."""
        for site in self.sites:
            for stream in site.streams:
                if stream != "image_prompt":
                    yield f"{self.name}.{site.quantity}.{stream}"


_STREAMS = "_stepscope_streams"


def with_streams(output: torch.Tensor, streams: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The output of a site that has a `split`, changed: the streams that it is the sum of now.

    Another run of the module would give those that it had before.
    """
    setattr(output, _STREAMS, streams)
    return output


def edited_streams(output: Any) -> tuple[torch.Tensor, ...] | None:
    """The streams of a changed output, None of one that is as the module made it."""
    return getattr(output, _STREAMS, None)


def select(patterns: Iterable[str], blocks: Iterable[Block], more: Sequence[str] = ()) -> list[str]:
    """Names of sites that can be kept whole and match any of the shell-style patterns, in order of
    execution.

    more: names beside those of the blocks.
    Raises StepscopeError for a pattern that matches nothing, with the closest names.
    """
    return matching(patterns, [*(n for block in blocks for n in block.site_names()), *more])


def matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """Those of the names that match any of the patterns. Raises StepscopeError as `select` does."""
    chosen: set[str] = set()
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise StepscopeError(f"no site matches {pattern!r}; {nearest(pattern, names)}")
        chosen.update(matched)
    return [name for name in names if name in chosen]
