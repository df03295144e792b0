"""A pipeline under hooks: what watches each of its calls, and hands what it made to the run."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from stepscope.hooks.adapters import active_adapters
from stepscope.hooks.call import Call, follow
from stepscope.hooks.capture import Capture
from stepscope.hooks.clock import Clock, Listener, Tick, denoiser_of, is_called, listening
from stepscope.hooks.collect import axes_of, collect, label_with
from stepscope.hooks.errors import (
    RunError,
    StepscopeError,
    StepscopeWarning,
    UnsupportedPipelineError,
)
from stepscope.hooks.families import Pass, family_of
from stepscope.hooks.fingerprint import of_models
from stepscope.hooks.labels import Label
from stepscope.hooks.parts import observers
from stepscope.hooks.provenance import device_of, provenance
from stepscope.hooks.sink import Sink
from stepscope.hooks.stopwatch import Stopwatch
from stepscope.hooks.support import branches_of, refuse
from stepscope.hooks.tape import Place
from stepscope.hooks.texts import Texts


class Recording:
    """A pipeline under hooks; what `record` yields.

    Call the pipeline as usual: each call adds its batch to the run. `place` says beforehand which
    samples of a run the next call makes; `label` what its samples are.
    """

    def __init__(
        self, pipe: Any, sink: Sink, capture: Capture, photos: Mapping[str, str] | None = None
    ) -> None:
        self.pipe, self.capture, self.photos = pipe, capture, dict(photos or {})
        self.texts = Texts(pipe, family_of(denoiser_of(pipe)).text_encoder)
        self.parts = observers(pipe, capture, self.texts)
        self.calls = 0
        self._sink = sink
        self._denoiser = denoiser_of(pipe)
        self._branches = branches_of(pipe, self.parts.family)
        self._call = Call(Stopwatch(device_of(pipe)))
        self._clock = Clock()
        self._adapters, self._processors = "[]", {}
        self._forget()

    def label(self, labels: Sequence[Label]) -> None:
        """What the next call's samples are: for each a mapping of names to JSON values.

        face, prompt, seed and the like are coordinates that every run has; any other name becomes a
        coordinate of its own. Without it, prompt and seed are those that the pipeline was seen to use.
        """
        self._sink.refuse_labels(labels)
        # as they are now: they are written later, on another thread
        self._labels = [deepcopy(dict(label)) for label in labels]

    def place(
        self,
        samples: Sequence[int | None],
        *,
        face_seconds: float = float("nan"),
        extras: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Which samples of the run the next call makes, in batch order; None is not kept.

        face_seconds: what finding and embedding the batch's faces took, for `stage_seconds`.
        extras: further variables of each sample, declared in the run's layout.
        """
        self._places, self._face_seconds, self._extras = samples, face_seconds, extras

    def _forget(self) -> None:
        """Nothing is known of the next call."""
        self._labels: Sequence[Label] | None = None
        self._places: Sequence[int | None] | None = None
        self._extras: Sequence[Mapping[str, np.ndarray]] | None = None
        self._face_seconds = float("nan")

    # The life of one call: see hooks/clock.py.

    def _begin(self, arguments: Mapping[str, Any]) -> None:
        self._processors = dict(getattr(self._denoiser, "attn_processors", {}))
        refuse(self.pipe)
        if denoiser_of(self.pipe) is not self._denoiser:
            raise UnsupportedPipelineError(
                "the pipeline's denoiser was replaced after recording began: record it anew"
            )
        self._adapters = active_adapters(self.pipe)
        about = provenance(self.pipe, self.capture, of_models(self.pipe))
        self._sink.expect({**about, "references": self.photos} if self.photos else about)
        self._sink.refuse_image(arguments.get("output_type", "pil") != "latent")
        if len(self.photos) > 1 and not any(label.get("face") for label in self._labels or ()):
            warnings.warn(
                f"faces names {len(self.photos)} people, and this call says of no sample whom it shows: "
                "recording.label([{'face': NAME}, ...]) before the call",
                StepscopeWarning,
                stacklevel=5,
            )
        prompts = self.texts.of(arguments.get("prompt_embeds")).prompts
        told = arguments if prompts is None else {**arguments, "prompt": prompts}
        self._call = Call.begin(Stopwatch(device_of(self.pipe)), told)
        self.calls += 1

    def _start(self) -> None:
        for part in (self.parts.denoiser, self.parts.adapter, self.parts.residuals):
            if part is not None:
                part.rewind()
        self._call.ticks.clear()
        self._call.branches.clear()
        self._call.ended.clear()
        self._call.begun = None
        self._sink.refuse_other_schedule([float(t) for t in self.pipe.scheduler.timesteps])

    def _before_pass(self, module: nn.Module, args: Any) -> None:
        if not is_called(self._denoiser):
            raise UnsupportedPipelineError(
                f"the {type(module).__name__} of this recording was run outside of a call of the recorded "
                f"{type(self.pipe).__name__}, whose steps nothing counts: call the pipeline, or record the "
                "one that is called"
            )
        batch = self._call.batch
        if self._clock.running and self._clock.step == 0 and batch is not None:
            self._refuse_counts(batch)  # before a step is paid for

    def _refuse_counts(self, batch: int) -> None:
        """Raise RunError where `label` or `place` told of other samples than the call makes."""
        for told, said in ((self._labels, "label()"), (self._places, "place()")):
            if told is not None and len(told) != batch:
                raise RunError(f"{said} named {len(told)} samples and the call makes {batch}")

    def _after_pass(self, module: nn.Module, args: Any, output: Any) -> None:
        batch = self._call.batch
        if self._clock.running and self._clock.step == 0 and batch is not None:
            self._parts_of((0, self._clock.nth), batch)  # before more is paid for

    def _parts_of(self, place: Place, batch: int) -> tuple[str, ...]:
        """The branches of a pass, in the order of its batch."""
        rows = self.parts.denoiser.passes[place].rows
        names = None
        if rows % batch == 0:
            told = Pass(self.pipe, self._call.arguments, place[1], rows // batch)
            names = self._branches(told)
        if names is None:
            raise UnsupportedPipelineError(
                f"pass {place[1] + 1} of step {place[0]} of {type(self.pipe).__name__} has {rows} samples "
                f"for {batch} latents: which of them are the prompt's is not known"
            )
        return names

    def _tick(self, tick: Tick) -> None:
        call, step = self._call, self._clock.step
        seen = sum(at == step for at, _ in self.parts.denoiser.passes)
        if not seen:
            raise UnsupportedPipelineError(
                f"step {step} of {type(self.pipe).__name__} ran without its {type(self._denoiser).__name__}"
            )
        call.branches.append([self._parts_of((step, nth), len(tick.before)) for nth in range(seen)])
        call.ticks.append(tick)
        call.ended.append(call.watch.now())
        call.settled = None
        tokens = self.parts.denoiser.passes[step, 0].tokens
        if tick.before.ndim == 3 and tick.before.shape[1] != tokens.image:
            raise UnsupportedPipelineError(
                f"the scheduler steps {tick.before.shape[1]} tokens and {tokens.image} of the "
                "denoiser's are the noisy image's: the others are not known"
            )
        if step == 0:
            self._refuse_unfit(tick)
        self._sink.spool(self.parts.denoiser.tensors)

    def _refuse_unfit(self, tick: Tick) -> None:
        """Raise RunError where the first step tells that the run cannot hold the call."""
        self._refuse_counts(len(tick.before))
        self._sink.refuse_other(axes_of(self._call, self.parts, self._denoiser))
        parts = self.parts
        tokens = parts.denoiser.passes[0, 0].tokens
        latent = tuple(parts.family.unpack(tick.before, tokens).shape[1:])
        steps = getattr(self.pipe, "num_timesteps", None)  # those that the call will run
        ends = {"x0": latent if steps is None else (steps, *latent)}
        for site, seen in parts.denoiser.tensors.items():
            for tensor in seen.values():
                ends[site] = tuple(tensor.shape[1:])
        self._sink.refuse_ends(ends)

    def _settle(self, latents: torch.Tensor) -> None:
        self._call.settled = latents

    def _end(self, output: Any) -> None:
        """Collect the finished call on the host and hand it to the writer."""
        call, labels, places = self._call, self._labels, self._places
        extras, seconds = self._extras, self._face_seconds
        self._forget()
        if not call.ticks:
            warnings.warn(
                f"a call of {type(self.pipe).__name__} ended without a step of its scheduler: nothing was "
                "recorded of it",
                StepscopeWarning,
                stacklevel=4,
            )
            return
        whole = self.pipe.num_timesteps if getattr(self.pipe, "interrupt", False) else None
        axes = axes_of(call, self.parts, self._denoiser, interrupted=whole)
        made = collect(
            self.pipe,
            call,
            self.parts,
            self.capture,
            axes,
            output,
            face_seconds=seconds,
            adapters=self._adapters,
        )
        seen = made.labels
        if len(self.photos) == 1:
            seen = [{**label, "face": next(iter(self.photos))} for label in seen]
        told = label_with(seen, labels)
        self._sink.put(made, places, told, extras or [{}] * axes.batch)

    def _abandon(self, error: BaseException) -> None:
        """The call raised: nothing of it is kept, and what it left half done for us is undone."""
        self._forget()
        self._sink.abandon()
        if not isinstance(error, StepscopeError):
            return
        if dict(getattr(self._denoiser, "attn_processors", {})) != self._processors:
            denoiser: Any = self._denoiser
            denoiser.set_attn_processor(dict(self._processors))
        if hasattr(self.pipe, "maybe_free_model_hooks"):
            self.pipe.maybe_free_model_hooks()

    def attach(self, stack: ExitStack) -> None:
        """Everything that watches the pipeline, each removed when `stack` closes."""
        parts, denoiser = self.parts, self._denoiser
        told = Listener(
            self._begin, self._start, self._tick, self._settle, self._end, self._abandon
        )
        self._clock = stack.enter_context(listening(self.pipe, told))
        before, after = _only(denoiser, self._before_pass), _only(denoiser, self._after_pass)
        stack.callback(denoiser.register_forward_pre_hook(before).remove)
        handles = parts.denoiser.attach(self._clock, denoiser)
        networks = {"denoiser": denoiser}
        if parts.adapter is not None:
            networks["adapter"] = self.pipe.controlnet
            handles += parts.adapter.attach(self._clock, self.pipe.controlnet)
        if parts.residuals is not None:
            handles.append(parts.residuals.attach(self._clock, denoiser))
        for handle in handles:
            stack.callback(handle.remove)
        stack.callback(denoiser.register_forward_hook(after).remove)
        follow(stack, self.pipe, lambda: self._call, networks)
        self.texts.attach(stack)


def _only(network: nn.Module, hook: Callable[..., None]) -> Callable[..., None]:
    """The hook for this network alone. `copy.deepcopy` of a network takes its hooks along, and of a bound
    method all that it is bound to."""

    def told(module: nn.Module, *seen: Any) -> None:
        if module is network:
            hook(module, *seen)

    return told
