"""Plain hooks that see what a pipeline's sites made of a call's first step, apart from the edits' own."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stepscope.hooks.clock import Listener, denoiser_of, listening
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.edits.verb import edit
from stepscope.hooks.errors import EditError
from stepscope.hooks.families import Tokens, blocks_of, family_of
from stepscope.hooks.order import reading
from stepscope.hooks.sites import Block, Site


class Halt(EditError):
    """What ends a call of which enough was seen."""


@dataclass
class SeenPass:
    """A pass. given: a digest of its tensors. values: of one site, (row, token, channel)."""

    given: str
    values: torch.Tensor | None = None


class Seen:
    """A digest of every site's output in the first pass, and one site's values in the first step's passes.

    site: an attention of the block in the middle. digests: by module, in the order in which they ran.
    halts: whether the call is ended by `Halt` after its first step.
    """

    def __init__(self, pipe: Any, *, halts: bool = False) -> None:
        self.pipe, self.denoiser, self.halts = pipe, denoiser_of(pipe), halts
        self.family = family_of(self.denoiser)
        blocks = blocks_of(self.denoiser)
        self._middle = blocks[len(blocks) // 2]
        self._site = next(s for s in self._middle.sites if s.streams[0] == "image")
        self._sites = [(block, site) for block in blocks for site in block.sites]
        self.site = f"{self._middle.name}.{self._site.quantity}.image"
        self.digests: dict[str, str] = {}
        self.passes: list[SeenPass] = []
        self._tokens: Tokens | None = None
        self._ended = False

    @property
    def values(self) -> torch.Tensor | None:
        """The site's in the first pass."""
        return self.passes[0].values if self.passes else None

    @property
    def before(self) -> list[str]:
        """Outputs that were made before the site's."""
        names = list(self.digests)
        return names[: names.index(_name(self._middle, self._site))]

    @property
    def after(self) -> list[str]:
        """Outputs that were made after the site's."""
        names = list(self.digests)
        return names[names.index(_name(self._middle, self._site)) + 1 :]

    def on(self, one: Edit) -> ExitStack:
        """The edit, and behind it the hooks that see what it made."""
        with ExitStack() as stack:
            stack.enter_context(edit(self.pipe, one))
            # after the edit's own listener, which says first whether the step was touched
            stack.enter_context(listening(self.pipe, Listener(tick=self._tick)))
            handles = [self.denoiser.register_forward_pre_hook(self._open, with_kwargs=True)]
            handles += [s.hooked(self._see(b, s)) for b, s in self._sites]
            for handle in handles:
                stack.callback(handle.remove)
            return stack.pop_all()

    def _open(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._ended:
            self._tokens = self.family.tokens(args, kwargs)
            # not a ControlNet's lists of residuals: an edit of them hands on one for each block
            given = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
            self.passes.append(SeenPass(_digest(given)))

    def _tick(self, tick: Any) -> None:
        self._ended = True
        if self.halts:
            raise Halt

    def _see(self, block: Block, site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self._ended or self._tokens is None:
                return
            if len(self.passes) == 1:
                self.digests[_name(block, site)] = _digest(output)
            if site is self._site:
                count = self._tokens.image + self._tokens.reference
                self.passes[-1].values = site.read(output, count)[0].detach().cpu().clone()

        return reading(hook)


def _name(block: Block, site: Site) -> str:
    return f"{block.name}.{site.quantity}.{'/'.join(site.streams)}"


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same bytes: a zero keeps its sign, and NaN equals itself."""
    return one.dtype == other.dtype and one.shape == other.shape and _digest(one) == _digest(other)


def _digest(values: Any) -> str:
    """Of a tensor, or of several; a last block hands on None in place of text."""
    digest = hashlib.sha256()
    for tensor in [values] if isinstance(values, torch.Tensor) else values:
        if tensor is not None:
            whole = tensor.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)
            digest.update(whole.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
