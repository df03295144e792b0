"""A pipeline under hooks: what watches each of its calls, and hands what it made to the run."""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from stepscope.hooks import compiled
from stepscope.hooks.adapters import active_adapters
from stepscope.hooks.call import Call, follow
from stepscope.hooks.capture import Capture
from stepscope.hooks.clock import (
    Clock,
    Listener,
    Tick,
    controlnet_of,
    denoiser_of,
    listening,
)
from stepscope.hooks.collect import axes_of, collect
from stepscope.hooks.edits.opened import told_edits
from stepscope.hooks.errors import StepscopeError, StepscopeWarning, UnsupportedPipelineError
from stepscope.hooks.families import family_of
from stepscope.hooks.fingerprint import of_models
from stepscope.hooks.finite import told_of
from stepscope.hooks.fit import check_same_axes, check_same_schedule, sizes_of
from stepscope.hooks.injections.fitted import without_place
from stepscope.hooks.labels import Label
from stepscope.hooks.next_call import NextCall
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.order import reading
from stepscope.hooks.parts import observers
from stepscope.hooks.passes import check_called, undo
from stepscope.hooks.patch import of_this
from stepscope.hooks.provenance import device_of, provenance
from stepscope.hooks.sink import Sink
from stepscope.hooks.stopwatch import Stopwatch
from stepscope.hooks.support import branches_of, check_compiled, parts_of, refuse
from stepscope.hooks.texts import Texts


class Recording:
    """A pipeline under hooks; what `record` yields.

    Call the pipeline as usual: each call adds its batch to the run. Before a call, `place` says which
    samples of a run the next call makes, and `label` describes its samples.
    """

    def __init__(
        self, pipe: Any, sink: Sink, capture: Capture, photos: Mapping[str, str] | None = None
    ) -> None:
        self.pipe, self.capture, self.photos = pipe, capture, dict(photos or {})
        self.texts = Texts(pipe, family_of(denoiser_of(pipe)).text_encoder)
        self.parts = observers(pipe, capture, self.texts, sink.keep)
        self.calls = 0
        self._sink = sink
        self._denoiser = denoiser_of(pipe)
        self._branches = branches_of(pipe, self.parts.family)
        self._call = Call(Stopwatch(device_of(pipe)))
        self._clock = Clock()
        self._adapters = "[]"
        self._processors: Mapping[str, Any] | None = None
        self._next = NextCall()
        self._lost: Exception | None = None

    def label(self, labels: Sequence[Label]) -> None:
        """Label the samples of the next call: one mapping of names to JSON values for each.

        face, prompt, seed and the like are coordinates that every run has; any other name becomes a
        coordinate of its own. Without it, prompt and seed are those that the pipeline was seen to use.
        """
        self._sink.check_labels(labels)
        # as they are now: they are written later, on another thread
        own = [deepcopy(dict(label)) for label in labels]
        self._next = replace(self._next, labels=own)

    def place(
        self,
        samples: Sequence[int | None],
        *,
        face_seconds: float = float("nan"),
        extras: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Name the run's samples that the next call makes, in batch order; None stores no sample.

        face_seconds: the time for finding and embedding the batch's faces, for `stage_seconds`.
        extras: further variables of each sample, declared in the run's layout.
        """
        self._next = NextCall(self._next.labels, samples, face_seconds, extras)

    # The life of one call: see hooks/clock.py. What does not fit is an error until its first step has
    # ended. After it the call is not stopped any more, for what it has cost: see `_lose`.

    def _begin(self, arguments: Mapping[str, Any]) -> None:
        self._lost = None
        self._processors = dict(getattr(self._denoiser, "attn_processors", {}))
        refuse(self.pipe)
        if denoiser_of(self.pipe) is not self._denoiser:
            raise UnsupportedPipelineError(
                "the pipeline's denoiser was replaced after recording began: enter `record` again"
            )
        self._adapters = active_adapters(self.pipe)
        about = provenance(self.pipe, self.capture, of_models(self.pipe))
        if edits := told_edits(self.pipe):
            about |= {"edits": edits}
        self._sink.expect({**about, "references": self.photos} if self.photos else about)
        run, labels = self._sink.run, self._next.labels or ()
        if run is not None:
            run.check_image(arguments.get("output_type", "pil") != "latent")
        self._sink.check_labels(labels)  # again: earlier calls are written by now
        if len(self.photos) > 1 and not any(label.get("face") for label in labels):
            warnings.warn(
                f"faces names {len(self.photos)} people, and no sample of this call has a face: call "
                "recording.label([{'face': NAME}, ...]) before the pipeline",
                StepscopeWarning,
                stacklevel=5,
            )
        prompts = self.texts.of(arguments.get("prompt_embeds")).prompts
        told = arguments if prompts is None else {**arguments, "prompt": prompts}
        self._call = Call.begin(Stopwatch(device_of(self.pipe)), told)
        self.calls += 1
        self.parts.added.begin(self._clock)
        check_compiled(self.pipe)

    def _start(self) -> None:
        for part in (self.parts.denoiser, self.parts.adapter, self.parts.added):
            if part is not None:
                part.reset()
        self._call.ticks.clear()
        self._call.branches.clear()
        self._call.ended.clear()
        self._call.begun = None
        check_same_schedule(self._sink.run, [float(t) for t in self.pipe.scheduler.timesteps])

    def _before_pass(self, module: nn.Module, args: Any) -> None:
        check_called(self.pipe, self._denoiser)
        batch = self._call.batch
        if self._clock.running and self._clock.step == 0 and batch is not None:
            self._next.check_counts(batch)  # before a step is paid for

    def _after_pass(self, module: nn.Module, args: Any, output: Any) -> None:
        batch = self._call.batch
        if self._clock.running and self._clock.step == 0 and batch is not None:
            self._parts_of((0, self._clock.nth), batch)  # before more is paid for

    def _parts_of(self, place: Place, batch: int) -> tuple[str, ...]:
        """The branches of a pass, in the order of its batch."""
        rows = self.parts.denoiser.passes[place].rows
        return parts_of(self.pipe, self._branches, self._call.arguments, place, rows, batch)

    def _tick(self, tick: Tick) -> None:
        if self._lost is not None:
            return
        try:
            self._see(tick)
        except Exception as error:
            if self._clock.step == 0:
                raise
            self._lose(error)

    def _see(self, tick: Tick) -> None:
        """Keep a step that has ended, and refuse the first of a call that does not fit."""
        call, step = self._call, self._clock.step
        for part in (self.parts.denoiser, self.parts.adapter, self.parts.added):
            if part is not None and part.fault is not None:
                raise part.fault
        seen = sum(at == step for at, _ in self.parts.denoiser.passes)
        if not seen:
            raise UnsupportedPipelineError(
                f"step {step} of {type(self.pipe).__name__} ran without its {type(self._denoiser).__name__}"
            )
        call.branches.append([self._parts_of((step, nth), len(tick.before)) for nth in range(seen)])
        # a copy: a compiled network may return the same memory at every step (CUDA graphs)
        call.ticks.append(replace(tick, output=tick.output.detach().clone()))
        call.ended.append(call.watch.now())
        call.settled = None
        tokens = self.parts.denoiser.passes[step, 0].tokens
        if tick.before.ndim == 3 and tick.before.shape[1] != tokens.image:
            raise UnsupportedPipelineError(
                f"the scheduler steps {tick.before.shape[1]} tokens, and {tokens.image} tokens of the "
                "denoiser are counted as the noisy image: the meaning of the others is unknown"
            )
        if step == 0:
            self._check_fit(tick)

    def _check_fit(self, tick: Tick) -> None:
        """Raise RunError where the first step tells that the run cannot hold the call."""
        self._next.check_counts(len(tick.before))
        check_same_axes(self._sink.run, axes_of(self._call, self.parts, self._denoiser))
        if words := without_place(self._sink.run, self.parts.added.injections):
            self._warn(words)
        sizes, axes = sizes_of(self.pipe, self.parts, tick.before)
        self._sink.check_labels(self._next.labels or (), {*sizes, *axes})
        if self._sink.run is not None:
            self._sink.run.check_ends(sizes)

    def _settle(self, latents: torch.Tensor) -> None:
        self._call.settled = latents

    def _end(self, output: Any) -> None:
        """Hand what a finished call made to the writer, and say of it what is to be known."""
        told, self._next = self._next, NextCall()
        self._processors = None
        self.parts.added.end()
        if self._lost is not None:
            return
        if not self._call.ticks:
            self._warn(
                f"a call of {type(self.pipe).__name__} ended without a step of its scheduler: nothing was "
                "recorded of it"
            )
            return
        try:
            bad = self._keep(output, told)
        except Exception as error:
            self._lose(error)
            return
        if any(bad):
            self._warn(told_of(bad))

    def _keep(self, output: Any, told: NextCall) -> list[str]:
        """Collect the finished call on the host; what is not finite of each sample."""
        whole = self.pipe.num_timesteps if getattr(self.pipe, "interrupt", False) else None
        axes = axes_of(self._call, self.parts, self._denoiser, interrupted=whole)
        made = collect(
            self.pipe,
            self._call,
            self.parts,
            self.capture,
            axes,
            output,
            face_seconds=told.face_seconds,
            adapters=self._adapters,
        )
        seen = made.labels
        if len(self.photos) == 1:
            seen = [{**label, "face": next(iter(self.photos))} for label in seen]
        seen = told.over(seen)
        if told_edits(self.pipe):
            each = [json.dumps(told_edits(self.pipe, i)) for i in range(axes.batch)]
            seen = [{**label, "edits": edits} for label, edits in zip(seen, each, strict=True)]
        self._sink.put(made, told.places, seen, told.extras or [{}] * axes.batch)
        return made.samples["not_finite"].tolist()

    def _lose(self, error: Exception) -> None:
        """The call goes on and its caller gets what it makes, but nothing of it is recorded.

        It is told at once, and raised where a later call begins, or on leaving.
        """
        self._lost = error
        self._sink.abandon()
        self._sink.fail(error)
        self._warn(
            f"nothing is recorded of this call of {type(self.pipe).__name__}, whose images are returned as "
            f"ever: {type(error).__name__}: {error}"
        )

    def _warn(self, words: str) -> None:
        try:
            warnings.warn(words, StepscopeWarning, stacklevel=6)
        except StepscopeWarning as raised:  # warnings are errors here
            self._sink.fail(raised)

    def _abandon(self, error: BaseException) -> None:
        """The call raised: nothing of it is kept, and what it left half done for us is undone."""
        self._next = NextCall()
        self.parts.added.end()
        self._sink.abandon()
        if isinstance(error, StepscopeError):
            undo(self.pipe, self._denoiser, self._processors)
        self._processors = None

    def attach(self, stack: ExitStack) -> None:
        """Everything that watches the pipeline, each removed when `stack` closes."""
        parts, denoiser = self.parts, self._denoiser
        told = Listener(
            self._begin, self._start, self._tick, self._settle, self._end, self._abandon
        )
        self._clock = stack.enter_context(listening(self.pipe, told))
        before = reading(of_this(denoiser, self._before_pass))
        after = reading(of_this(denoiser, self._after_pass))
        stack.callback(compiled.before(denoiser, before, outside=True).remove)
        handles = parts.denoiser.attach(self._clock, denoiser)
        networks = {"denoiser": denoiser}
        if parts.adapter is not None:
            network = controlnet_of(self.pipe)
            assert network is not None
            networks["adapter"] = network
            handles += parts.adapter.attach(self._clock, network)
        stack.callback(parts.added.end)
        for handle in handles:
            stack.callback(handle.remove)
        stack.callback(compiled.after(denoiser, after, outside=True).remove)
        follow(stack, self.pipe, lambda: self._call, networks)
        self.texts.attach(stack)
