"""A pipeline under edits: what changes the values of its sites in each of its calls."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from stepscope.hooks import compiled
from stepscope.hooks.clock import Clock, Listener, Tick, denoiser_of, listening
from stepscope.hooks.edits.changes import Changes
from stepscope.hooks.edits.course import Course
from stepscope.hooks.edits.lens import Now
from stepscope.hooks.edits.sites import ADAPTER, Sites
from stepscope.hooks.edits.target import Target
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.errors import (
    EditError,
    StepscopeError,
    StepscopeWarning,
    UnsupportedPipelineError,
)
from stepscope.hooks.families import Pass, family_of
from stepscope.hooks.families.arguments import rows_of
from stepscope.hooks.order import before_readers
from stepscope.hooks.passes import check_called, undo
from stepscope.hooks.patch import of_this, replaced
from stepscope.hooks.support import branches_of, check_compiled, check_edit, parts_of
from stepscope.hooks.texts import Texts


class Editing:
    """A pipeline under edits; they are made in the order of their list."""

    def __init__(self, pipe: Any, edits: Sequence[Edit]) -> None:
        self.pipe, self.calls = pipe, 0
        self.beside: Sequence[Editing] = ()
        """All that are open on the pipeline, this one among them."""
        self._denoiser = denoiser_of(pipe)
        self._family = family_of(self._denoiser)
        self._branches = branches_of(pipe, self._family)
        self._sites = Sites.of_pipe(pipe)
        self._texts = Texts(pipe, self._family.text_encoder)
        self.targets = [Target(i, edit, self._sites, pipe) for i, edit in enumerate(edits)]
        self._clock = Clock()
        self._arguments: Mapping[str, Any] = {}
        self._processors: Mapping[str, Any] | None = None
        self._batch: int | None = None
        self._course: Course | None = None
        self._changes = Changes(self.targets, self._sites.handed)
        self._seen: list[str] = []

    def told(self, sample: int | None = None) -> list[dict[str, Any]]:
        """The edits as JSON values; those that touch one sample of a batch, or all."""
        made = [t.edit for t in self.targets if sample is None or t.reached]
        return [e.told() for e in made if sample is None or e.rows is None or sample in e.rows]

    # The life of one call: see hooks/clock.py.

    def _begin(self, arguments: Mapping[str, Any]) -> None:
        self._processors = dict(getattr(self._denoiser, "attn_processors", {}))
        check_edit(self.pipe)
        if denoiser_of(self.pipe) is not self._denoiser:
            raise UnsupportedPipelineError(
                "the pipeline's denoiser was replaced after editing began: enter `edit` again"
            )
        check_compiled(self.pipe)
        sites = Sites.of_pipe(self.pipe)
        for target in self.targets:
            sites.chosen(target.edit)  # an adapter may have been unloaded
            self._check_adapter_on(target, arguments)
        others = [one for one in self.beside if one is not self]
        self._changes.shared = {s for one in others for target in one.targets for s in target.sites}
        self._arguments, self._batch = arguments, None
        self.calls += 1

    def _check_adapter_on(self, target: Target, arguments: Mapping[str, Any]) -> None:
        scale = arguments.get("controlnet_conditioning_scale", 1.0)
        off = not any(scale) if isinstance(scale, list | tuple) else not scale
        site = next((site for site in target.sites if site.endswith(f".{ADAPTER}")), None)
        if off and site is not None:
            raise EditError(
                f"{target.which} would touch nothing at {site}: the adapter is off in this call "
                f"(controlnet_conditioning_scale={scale})"
            )

    def _start(self) -> None:
        self._course, self._seen = None, []
        self._changes.close()
        for target in self.targets:
            target.forget()

    def _tick(self, tick: Tick) -> None:
        step = self._clock.step
        for target in self.targets:
            if step == 0:
                target.check_branch(list(dict.fromkeys(self._seen)))
            target.check_touches(step)
        self._seen = []

    def _end(self, output: Any) -> None:
        self._processors = None
        self._changes.close()
        left = [t.which for t in self.targets if not t.reached]
        if left and self._course is not None:
            warnings.warn(
                f"{', '.join(left)} touched nothing: the call ended before the first step of the window",
                StepscopeWarning,
                stacklevel=4,
            )

    def _abandon(self, error: BaseException) -> None:
        self._changes.close()
        if isinstance(error, StepscopeError):
            undo(self.pipe, self._denoiser, self._processors)
        self._processors = None

    # A pass of the denoiser.

    def _before_pass(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        check_called(self.pipe, self._denoiser, "edit")
        if not self._clock.running:
            return None
        now = self._pass(args, kwargs)
        self._seen += now.parts
        if (self._clock.step, self._clock.nth) == (0, 0):
            self._course = Course.of(self.pipe, self._family, args, kwargs)
            for target in self.targets:
                target.begin(self._course, now.batch, self._may_run(now))
        assert self._course is not None
        self._changes.open(now, self._course, self._clock.step, self._clock.nth)
        handed = self._changes.handed(self._sites.edges, kwargs)
        return None if handed is None else (args, handed)

    def _pass(self, args: Any, kwargs: dict[str, Any]) -> Now:
        (rows, _), batch = rows_of(args, kwargs), self._batch
        if batch is None:
            raise UnsupportedPipelineError(
                f"cannot edit {type(self.pipe).__name__}: the number of samples in its batch is unknown"
            )
        place = self._clock.step, self._clock.nth
        parts = parts_of(self.pipe, self._branches, self._arguments, place, rows, batch)
        tokens = self._texts.told(self._family.tokens(args, kwargs), args, kwargs, rows)
        return Now(self._family, tokens, tokens.lengths, parts, batch)

    def _may_run(self, now: Now) -> list[str]:
        """The branches of the first pass, and of a second one if the pipeline has such."""
        second = self._branches(Pass(self.pipe, self._arguments, 1, 1)) or ()
        return [*now.parts, *second]

    def attach(self, stack: ExitStack) -> None:
        """Everything that changes the pipeline's values, each removed when `stack` closes."""
        told = Listener(
            begin=self._begin,
            start=self._start,
            tick=self._tick,
            end=self._end,
            abandon=self._abandon,
        )
        self._clock = stack.enter_context(listening(self.pipe, told))
        denoiser = self._denoiser
        before = of_this(denoiser, self._before_pass)
        handles = [compiled.before(denoiser, before, with_kwargs=True, outside=True)]
        for block in self._sites.blocks:
            for site in block.sites:
                hook = self._changes.hook(block, site)
                if hook is not None:
                    handles.append(site.hooked(hook))
        for one in self._sites.declared:
            hook = self._changes.declared(one)
            if hook is not None:
                handles.append(compiled.after(one.module, hook, with_kwargs=True))
        if (layers := self._sites.layers) is not None:
            for path, name in layers.matrices:
                hook = self._changes.low_rank(layers, path, name)
                if hook is not None:
                    handles.append(compiled.after(layers.layers[path].lora_B[name], hook))
        sites = [site.module for block in self._sites.blocks for site in block.sites]
        stack.enter_context(compiled.as_if_changed(*sites))
        for handle in handles:
            stack.callback(before_readers(handle).remove)
        if hasattr(self.pipe, "prepare_latents"):
            stack.enter_context(replaced(self.pipe, "prepare_latents", self._prepare))
        self._texts.attach(stack)

    def _prepare(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        self._batch = len(result[0] if isinstance(result, tuple) else result)
        return result
