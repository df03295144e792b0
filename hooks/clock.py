"""One clock a pipeline: its calls, the steps of its scheduler, and the passes of its denoiser.

The life of one call:

    pipe(...)                            begin     the arguments are known; a listener may refuse
      scheduler.set_timesteps(...)       start     the clock runs
      for each step:
        denoiser(...)                              a pass; with true CFG or the like, another one
        scheduler.step(...)              tick      output, latents before and after; the step moves on
        callback_on_step_end(...)        settle    the latents that would be decoded now
      image = vae.decode(...)
    return                               end       what the pipeline returned
    or an exception                      abandon
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import nn

from stepscope.hooks.compiled import around_optimized, before
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.laid import unwrapped
from stepscope.hooks.patch import of_class, replaced

NETWORKS = ("transformer", "unet", "controlnet")
"""A pipeline's components that are recorded."""


def denoiser_of(pipe: Any) -> nn.Module:
    """The network that a pipeline calls at every step: its transformer or its U-Net."""
    for name in ("transformer", "unet"):
        model = getattr(pipe, name, None)
        if model is not None:
            return unwrapped(model)
    raise UnsupportedPipelineError(
        f"{type(pipe).__name__} has neither a transformer nor a unet: nothing to record"
    )


@dataclass
class Clock:
    """Where a pipeline call stands. Hooks read it; only the scheduler and the denoiser move it.

    steps: number of steps that the scheduler was set to; the call may run fewer.
    step: index of the current step, counted from the call's first.
    passes: forward passes of the denoiser begun in this step.
    running: between `set_timesteps` and the end of the call.
    """

    steps: int = 0
    step: int = 0
    passes: int = 0
    running: bool = False

    @property
    def nth(self) -> int:
        """Which pass of the step is under way, from 0; a ControlNet runs before the first."""
        return max(self.passes - 1, 0)

    def start(self, steps: int) -> None:
        self.steps, self.step, self.passes, self.running = steps, 0, 0, True

    def tick(self) -> None:
        self.step, self.passes = self.step + 1, 0

    def stop(self) -> None:
        self.passes, self.running = 0, False


@dataclass(frozen=True)
class Tick:
    """What a scheduler step was given and made: the (guided) output, latents before and after.

    index: the step's place in `scheduler.sigmas`, None for a scheduler that does not count.
    """

    index: int | None
    timestep: Any
    output: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor


def controlnet_of(pipe: Any) -> nn.Module | None:
    """The ControlNet beside a pipeline's denoiser, None without one."""
    return unwrapped(getattr(pipe, "controlnet", None))


def _nothing(*args: Any) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Listener:
    """What is told of a pipeline's calls, in the order that this file's head shows.

    begin: the arguments by name, defaults included. settle: the latents after the step's callback.
    end: what the pipeline returned. abandon: the call raised this exception.
    """

    begin: Callable[[Mapping[str, Any]], None] = _nothing
    start: Callable[[], None] = _nothing
    tick: Callable[[Tick], None] = _nothing
    settle: Callable[[torch.Tensor], None] = _nothing
    end: Callable[[Any], None] = _nothing
    abandon: Callable[[BaseException], None] = _nothing


@contextmanager
def listening(pipe: Any, listener: Listener) -> Iterator[Clock]:
    """The pipeline's clock, and its calls told to the listener, for as long as the `with` lasts.

    All listeners of a pipeline share one clock, and may leave in any order.
    """
    source = _SOURCES.get(pipe)
    if source is None:
        source = _SOURCES[pipe] = _Source(pipe)
    source.listeners.append(listener)
    try:
        yield source.clock
    finally:
        source.listeners.remove(listener)
        if not source.listeners:
            del _SOURCES[pipe]
            source.close()


def is_called(denoiser: nn.Module) -> bool:
    """Whether a call of some pipeline that is listened to runs this denoiser now, on this thread."""
    return any(s.calls_here() and denoiser_of(s.pipe) is denoiser for s in _SOURCES.values())


class _Source:
    """A pipeline whose calls are told to listeners.

    Python looks `__call__` up in the class, so the object is given a subclass that has another one.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.clock, self.calling = pipe, Clock(), False
        self.thread = 0  # that calls
        self.listeners: list[Listener] = []
        with ExitStack() as stack:
            stack.enter_context(of_class(pipe, "__call__", self._call))
            # a function and no bound method: copies of the denoiser take it along
            hook = before(
                denoiser_of(pipe),
                lambda module, args: self._begin_pass(),
                prepend=True,
                outside=True,
            )
            stack.callback(hook.remove)
            self.close = stack.pop_all().close

    def calls_here(self) -> bool:
        """Whether a call is under way, on this thread."""
        return self.calling and self.thread == get_ident()

    def _begin_pass(self) -> None:
        if self.clock.running and self.calls_here():
            self.clock.passes += 1

    def _check_alone(self) -> None:
        """Raise UnsupportedPipelineError while another call runs the denoiser, whose passes would be taken
        for those of this one."""
        for source in list(_SOURCES.values()):
            if source.calling and denoiser_of(source.pipe) is denoiser_of(self.pipe):
                name, network = type(source.pipe).__name__, type(denoiser_of(self.pipe)).__name__
                raise UnsupportedPipelineError(
                    f"another call of a recorded {name} is running the {network}, and the passes of the "
                    "two calls cannot be distinguished: make recorded calls one after the other"
                )

    def _call(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.calls_here():  # a pipeline that calls itself
            return original(*args, **kwargs)
        signature = inspect.signature(original)
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # which says what is wrong with them
        bound.apply_defaults()
        with _TURN:
            self._check_alone()
            self.calling, self.thread = True, get_ident()
        try:
            result = self._told(original, bound)
        except BaseException as error:
            for listener in list(self.listeners):
                listener.abandon(error)
            raise
        finally:
            self.calling = False
            self.clock.stop()
        return result

    def _told(self, original: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
        listeners = list(self.listeners)
        for listener in listeners:
            # lists are copied: ZImagePipeline writes its template into the list of prompts
            told = {k: list(v) if isinstance(v, list) else v for k, v in bound.arguments.items()}
            listener.begin(told)
        with ExitStack() as stack:
            scheduler = self.pipe.scheduler  # as it is now: it may be another than in the last call
            stack.enter_context(replaced(scheduler, "set_timesteps", self._set_timesteps))
            stack.enter_context(replaced(scheduler, "step", self._step))
            stack.enter_context(around_optimized(self.pipe, NETWORKS))
            if "callback_on_step_end" in bound.arguments:
                _settle(bound.arguments, self._settled, decoded_by_name(self.pipe))
            result = original(*bound.args, **bound.kwargs)
        self.clock.stop()
        for listener in listeners:
            listener.end(result)
        return result

    def _set_timesteps(self, original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        self.clock.start(len(self.pipe.scheduler.timesteps))
        for listener in self.listeners:
            listener.start()

    def _step(
        self,
        original: Callable[..., Any],
        model_output: Any,
        timestep: Any,
        sample: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        result = original(model_output, timestep, sample, *args, **kwargs)
        counted = getattr(self.pipe.scheduler, "step_index", None)  # moved on by this step
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        index = None if counted is None else counted - 1
        for listener in self.listeners:
            listener.tick(Tick(index, timestep, model_output, sample, after))
        self.clock.tick()
        return result

    def _settled(self, latents: torch.Tensor) -> None:
        for listener in self.listeners:
            listener.settle(latents)


def decoded_by_name(pipe: Any) -> str:
    """What a pipeline's callbacks call the latents that it decodes: latent consistency models decode
    `denoised`, and go on with other `latents`."""
    return "denoised" if "denoised" in getattr(pipe, "_callback_tensor_inputs", ()) else "latents"


def _settle(
    arguments: dict[str, Any], settled: Callable[[torch.Tensor], None], decoded: str
) -> None:
    """Put a callback around the caller's own that sees the latents which would be decoded after it.

    Pipelines change latents after the scheduler's step (inpainting blends the known part in), and so
    may the caller's callback. It is given what it asked for, and its answer is passed on. decoded: their
    name among the callback's tensors.
    """
    own: Any = arguments["callback_on_step_end"]
    wanted = list(arguments["callback_on_step_end_tensor_inputs"] or [])
    if isinstance(own, (PipelineCallback, MultiPipelineCallbacks)):  # as every pipeline does
        wanted = list(own.tensor_inputs)

    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        latents, answer = values[decoded], {}
        if own is not None:
            answer = own(pipe, step, timestep, {name: values[name] for name in wanted})
            latents = answer.get(decoded, latents)
        settled(latents)
        return answer

    arguments["callback_on_step_end"] = callback
    arguments["callback_on_step_end_tensor_inputs"] = list(dict.fromkeys([*wanted, decoded]))


_TURN = Lock()
_SOURCES: WeakKeyDictionary[Any, _Source] = WeakKeyDictionary()
