"""Prove on the user's own models that an edit changes what it names, nothing before it, and goes again."""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.edits.operations import Scale
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.edits.verb import edit
from stepscope.hooks.errors import EditError
from stepscope.hooks.families import Tokens, blocks_of, family_of
from stepscope.hooks.finding import Finding
from stepscope.hooks.order import reading
from stepscope.hooks.returned import numbers_of
from stepscope.hooks.sites import Block, Site

OWN = ("*.attention.*", "*.residual.*")
"""Sites of the denoiser's own blocks."""
FACTOR = 0.5  # of the edit that is tried; exact in every dtype


class _Halt(EditError):
    """What an edit raises within a call, to see what it leaves."""


def prove_edits(pipe: Any, call: Callable[[], Any], plain: np.ndarray) -> list[Finding]:
    """Four claims about edits, in two runs of `call` and the beginning of a third.

    call: as `verify` takes it. plain: what it returned without any hooks.
    """
    claim = "an edit that multiplies by 1 gives the same bytes"
    second, failed = _Seen(pipe), ""
    for sites in ("*", OWN):  # an adapter that is off adds zeros, and an edit of them is refused
        first = _Seen(pipe)
        try:
            with first.on(Edit(sites, Scale(1.0))):
                same = numbers_of(call())
            break
        except EditError as error:
            failed = str(error)
    else:
        return [Finding(claim, False, failed)]
    with second.on(Edit(first.site, Scale(FACTOR), steps=(0, 1))):
        call()
    differ = int((plain != same).sum())
    return [
        Finding(
            claim,
            plain.tobytes() == same.tobytes(),
            f"{differ} of {plain.size} numbers differ",
        ),
        _as_asked(first, second),
        _upstream(first, second),
        _left(pipe, call, first.site),
    ]


def _as_asked(first: "_Seen", second: "_Seen") -> Finding:
    asked = None if first.values is None else FACTOR * first.values
    holds = (
        asked is not None
        and second.values is not None
        and torch.equal(asked, second.values)
        and bool(asked.any())
    )
    after = [name for name in first.after if first.digests.get(name) != second.digests.get(name)]
    return Finding(
        "an edited site reads as asked, and what comes after it is changed",
        holds and bool(after),
        f"{first.site} times {FACTOR}; {len(after)} of {len(first.after)} outputs after it changed",
    )


def _upstream(first: "_Seen", second: "_Seen") -> Finding:
    before = first.before
    other = [name for name in before if first.digests.get(name) != second.digests.get(name)]
    detail = f"{len(before) - len(other)} of {len(before)} outputs before it are the same bytes"
    if other:
        detail += f", the first that is not is {other[0]}"
    return Finding("everything before an edited site is unchanged", not other, detail)


def _left(pipe: Any, call: Callable[[], Any], site: str) -> Finding:
    def halts(values: torch.Tensor, at: Any) -> torch.Tensor:
        raise _Halt

    before, stopped = _hooks(pipe), False
    try:
        with edit(pipe, Edit(site, halts)):
            call()
    except _Halt:
        stopped = True
    after = _hooks(pipe)
    other = [name for name in after if after[name] != before.get(name)]
    detail = f"{other[0]} is left changed" if other else f"{len(after)} modules as they were"
    return Finding("nothing of an edit is left after an error", stopped and not other, detail)


def _hooks(pipe: Any) -> dict[str, tuple[Any, ...]]:
    """Of every module of the pipeline, its class and the hooks on it; and the pipeline's own class."""
    found: dict[str, tuple[Any, ...]] = {"pipe": (type(pipe),)}
    for part, model in pipe.components.items():
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            hooks = [*module._forward_hooks, -1, *module._forward_pre_hooks]
            found[f"{part}.{name}"] = type(module), "forward" in vars(module), hooks
    return found


class _Seen:
    """Plain hooks that see the first pass: a digest of every site's output, and one site's values whole.

    site: an attention of the block in the middle. digests: by module, in the order in which they ran.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.denoiser = pipe, denoiser_of(pipe)
        self.family = family_of(self.denoiser)
        blocks = blocks_of(self.denoiser)
        self._middle = blocks[len(blocks) // 2]
        self._site = next(s for s in self._middle.sites if s.streams[0] == "image")
        self._sites = [(block, site) for block in blocks for site in block.sites]
        self.site = f"{self._middle.name}.{self._site.quantity}.image"
        self.digests: dict[str, str] = {}
        self.values: torch.Tensor | None = None
        self._tokens: Tokens | None = None
        self._ended = False

    @property
    def before(self) -> list[str]:
        """Outputs that were made before the site's."""
        names = list(self.digests)
        return names[: names.index(self._name(self._middle, self._site))]

    @property
    def after(self) -> list[str]:
        names = list(self.digests)
        return names[names.index(self._name(self._middle, self._site)) + 1 :]

    def on(self, one: Edit) -> ExitStack:
        """The edit, and behind it the hooks that see what it made."""
        with ExitStack() as stack:
            stack.enter_context(edit(self.pipe, one))
            handles = [
                self.denoiser.register_forward_pre_hook(self._open, with_kwargs=True),
                self.denoiser.register_forward_hook(self._close),
            ]
            handles += [s.hooked(self._see(b, s)) for b, s in self._sites]
            for handle in handles:
                stack.callback(handle.remove)
            return stack.pop_all()

    def _name(self, block: Block, site: Site) -> str:
        return f"{block.name}.{site.quantity}.{'/'.join(site.streams)}"

    def _open(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._tokens = self.family.tokens(args, kwargs)

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        self._ended = True

    def _see(self, block: Block, site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self._ended or self._tokens is None:
                return
            tensors = output if isinstance(output, tuple) else (output,)
            digest = hashlib.sha256()
            for tensor in tensors:
                if tensor is not None:  # a last block hands no text on
                    digest.update(_bytes(tensor))
            self.digests[self._name(block, site)] = digest.hexdigest()
            if site is self._site:
                count = self._tokens.image + self._tokens.reference
                self.values = site.read(output, count)[0].detach().cpu().clone()

        return reading(hook)


def _bytes(tensor: torch.Tensor) -> bytes:
    whole = tensor.detach().cpu().contiguous()
    return whole.view(torch.uint8).numpy().tobytes()
