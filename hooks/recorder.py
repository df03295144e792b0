"""The public verb: `with record(pipe, "run.zarr"): pipe(...)`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hooks.assemble import Assembled, Parts, assemble
from hooks.call import Call, follow
from hooks.capture import Capture
from hooks.clock import Tick, denoiser_of, ticking
from hooks.contribution import Residuals
from hooks.errors import RunError, UnsupportedPipelineError
from hooks.estimate import SCHEDULERS, refusal
from hooks.observe import Observer
from hooks.patch import replaced
from hooks.provenance import provenance
from hooks.sites import blocks_of, select
from hooks.stopwatch import Stopwatch
from hooks.store import Label, Run
from hooks.writer import Writer


class Recording:
    """A pipeline under hooks; what `record` yields.

    Call the pipeline as usual: each call adds its batch to the run. `place` says beforehand which
    samples of a run the next call makes; `label` what its samples are.
    """

    def __init__(self, pipe: Any, run: Run | Path, capture: Capture, writer: Writer) -> None:
        self.pipe, self.capture = pipe, capture
        self.parts = observers(pipe, capture)
        self._run, self._writer = run, writer
        self._labels: Sequence[Label] | None = None
        self._places: Sequence[int | None] | None = None
        self._face_seconds = float("nan")
        self._extras: Sequence[Mapping[str, np.ndarray]] | None = None
        self._watch = Stopwatch(_device(pipe))
        self._call = Call(self._watch)

    def label(self, labels: Sequence[Label]) -> None:
        """What the next call's samples are: for each a mapping with any of face, prompt, seed.

        Without it, prompt and seed are those that the pipeline was seen to use.
        """
        self._labels = labels

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
        self._places, self._face_seconds = samples, face_seconds
        self._extras = extras

    def _begin(self) -> None:
        """A pipeline call begins; one that failed halfway before it leaves nothing behind."""
        self._call = Call(self._watch)

    def _start(self) -> None:
        self.parts.denoiser.rewind()
        for part in (self.parts.adapter, self.parts.residuals):
            if part is not None:
                part.rewind()
        self._call.ticks.clear()
        self._call.moments[:] = [self._call.watch.now()]

    def _tick(self, tick: Tick) -> None:
        self._call.ticks.append(tick)
        self._call.moments.append(self._call.watch.now())

    def _end(self) -> None:
        """Collect the finished call on the host and hand it to the writer."""
        call, self._call = self._call, Call(self._watch)
        labels, self._labels = self._labels, None
        places, self._places = self._places, None
        extras, self._extras = self._extras, None
        if not call.ticks:
            return
        made = assemble(self.pipe, call, self.parts, self.capture, self._face_seconds)
        batch = len(made.samples["latents"])
        labels = _labels(call, labels, batch)
        if places is not None and len(places) != batch:
            raise RunError(f"place() named {len(places)} samples and the call made {batch}")
        extras = extras or [{}] * batch
        self._writer.put(lambda: self._store(made, places, labels, extras))

    def _store(
        self,
        made: Assembled,
        places: Sequence[int | None] | None,
        labels: Sequence[Label],
        extras: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Write a call's samples: on the writer's thread, which alone touches the run."""
        if isinstance(self._run, Path):
            self._run = self._open(self._run, made)
        run = self._run
        samples = [
            {name: values[i] for name, values in made.samples.items()} | dict(extras[i])
            for i in range(len(labels))
        ]
        # before anything is written: a call that does not fit adds nothing
        run.refuse_other(samples[0])
        run.write_steps(made.steps)
        if places is None:
            run.append(labels, samples)
            return
        for place, sample in zip(places, samples, strict=True):
            if place is not None:
                run.write(place, sample)

    def _open(self, path: Path, made: Assembled) -> Run:
        if path.exists():
            return Run.open(path)
        return Run.create(path, made.layout, [], provenance(self.pipe, self.capture))


@contextmanager
def record(pipe: Any, out: str | Path | Run, capture: Capture | None = None) -> Iterator[Recording]:
    """Record every call of a diffusers pipeline into a Zarr run, for as long as the `with` lasts.

    pipe: a pipeline whose denoiser is a FLUX transformer or a U-Net. Its outputs are bit for bit
        those without recording, and it is left as it was found.
    out: path of the run, which is made or added to; or a `Run` that has places for the samples.
    capture: what to keep; latents, x0, norms, timings and the image by default.

    Raises UnsupportedPipelineError for a pipeline, scheduler or compiled state that cannot be
    recorded truthfully, and NonFiniteError from inside the pipeline's call. Samples are written on
    a thread of their own: a RunError or a disk error is raised by a later call, or on leaving.
    After any exception the hooks are gone and the samples finished so far are readable.
    """
    refuse_compiled(pipe)
    if not isinstance(pipe.scheduler, tuple(SCHEDULERS)):
        raise UnsupportedPipelineError(refusal(pipe.scheduler))
    run = out if isinstance(out, Run) else Path(out)
    with Writer() as writer, ExitStack() as hooks:
        recording = Recording(pipe, run, capture or Capture(), writer)
        _lay_hooks(hooks, recording)
        yield recording


def observers(pipe: Any, capture: Capture) -> Parts:
    """Observers for a pipeline's denoiser and, if it has one, its ControlNet; not yet attached.

    Raises StepscopeError if `capture.sites` names a site that the denoiser does not have.
    """
    blocks = blocks_of(denoiser_of(pipe))
    denoiser = Observer(
        blocks,
        maps=capture.level == "tokens",
        whole=select(capture.sites, blocks),
        keep_output=capture.velocity,
    )
    network = getattr(pipe, "controlnet", None)
    if network is None:
        return Parts(denoiser, None, None, "text")
    inside = [
        replace(block, sites=tuple(s for s in block.sites if s.quantity == "attention"))
        for block in blocks_of(network)
    ]
    kinds = [block.kind for block in blocks]
    residuals = (
        Residuals(kinds.count("double"), kinds.count("single")) if "double" in kinds else None
    )
    context = getattr(network, "context_stream", "text")
    return Parts(denoiser, Observer(inside, may_skip=True), residuals, context)


def refuse_compiled(pipe: Any) -> None:
    """Raise UnsupportedPipelineError if hooks laid now would not be seen by compiled code.

    Dynamo guards no hooks of modules that it compiled earlier (`skip_nnmodule_hook_guards`), so
    what was compiled before recording would run without them.
    """
    for part in ("transformer", "unet", "controlnet"):
        model = getattr(pipe, part, None)
        for name, module in model.named_modules() if model is not None else ():
            whole = isinstance(module, torch._dynamo.OptimizedModule)
            if whole or module._compiled_call_impl is not None:
                where = f"{part}.{name}" if name else part
                raise UnsupportedPipelineError(
                    f"pipe.{where} was compiled before recording, so hooks inside it would stay "
                    "silent: record the pipeline before compiling it"
                )


def _lay_hooks(stack: ExitStack, recording: Recording) -> None:
    """Everything that watches the pipeline, each removed when `stack` closes."""
    pipe, parts = recording.pipe, recording.parts
    networks = {"denoiser": denoiser_of(pipe)}
    if parts.adapter is not None:
        networks["adapter"] = pipe.controlnet
    clock = stack.enter_context(ticking(pipe, recording._start, recording._tick))
    handles = parts.denoiser.attach(clock, networks["denoiser"])
    if parts.adapter is not None:
        handles += parts.adapter.attach(clock, networks["adapter"])
    if parts.residuals is not None:
        handles.append(parts.residuals.attach(clock, networks["denoiser"]))
    for handle in handles:
        stack.callback(handle.remove)
    follow(stack, pipe, lambda: recording._call, networks)

    def begin(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        recording._begin()
        original(*args, **kwargs)

    def end(original: Callable[[], None]) -> None:
        clock.running = False
        recording._end()
        original()

    # The first and the last thing that every diffusers pipeline does in a call.
    stack.enter_context(replaced(pipe, "check_inputs", begin))
    stack.enter_context(replaced(pipe, "maybe_free_model_hooks", end))


def _device(pipe: Any) -> torch.device:
    """Where the denoiser computes. diffusers' own property walks through every module of the pipeline."""
    held = next(denoiser_of(pipe).parameters()).device
    if held.type == "cuda" or not torch.cuda.is_available():
        return held
    return torch.device(pipe._execution_device)  # offloaded


def _labels(call: Call, given: Sequence[Label] | None, batch: int) -> Sequence[Label]:
    labels: list[dict[str, Any]] = [dict(label) for label in given or [{}] * batch]
    if len(labels) != batch:
        raise RunError(f"label() named {len(labels)} samples and the call made {batch}")
    for i, label in enumerate(labels):
        # num_images_per_prompt repeats each prompt and keeps the repeats together
        if call.prompts:
            label.setdefault("prompt", call.prompts[i * len(call.prompts) // batch])
        if call.seeds:
            label.setdefault("seed", call.seeds[i * len(call.seeds) // batch])
        label["batch_size"] = batch
    return labels
