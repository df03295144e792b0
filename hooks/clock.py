"""One clock: the scheduler's step is the tick, and it knows which branch a forward pass is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hooks.errors import UnsupportedPipelineError
from hooks.patch import replaced
from hooks.vocabulary import BRANCHES


def denoiser_of(pipe: Any) -> nn.Module:
    """The network that a pipeline calls at every step: its transformer or its U-Net."""
    for name in ("transformer", "unet"):
        model = getattr(pipe, name, None)
        if model is not None:
            return model
    raise UnsupportedPipelineError(
        f"{type(pipe).__name__} has neither a transformer nor a unet: nothing to record"
    )


@dataclass
class Clock:
    """Where a pipeline call stands. Hooks read it; only the scheduler and the denoiser move it.

    steps: number of steps that the scheduler was set to.
    step: index of the current step.
    passes: forward passes of the denoiser begun in this step.
    running: between `set_timesteps` and the end of the call.
    """

    steps: int = 0
    step: int = 0
    passes: int = 0
    running: bool = False

    @property
    def branch(self) -> int:
        """Index into `BRANCHES` of the pass under way.

        With true CFG diffusers' FLUX pipelines run the positive pass first, then the negative one
        (pipeline_flux.py, denoising loop); a U-Net runs both as one batch, which is pass 0.
        """
        return self.passes - 1

    def start(self, steps: int) -> None:
        self.steps, self.step, self.passes, self.running = steps, 0, 0, True

    def begin_pass(self) -> None:
        self.passes += 1
        if self.passes > len(BRANCHES):
            raise UnsupportedPipelineError(
                f"the denoiser ran {self.passes} times in step {self.step}: only a positive and a "
                "negative pass are known (perturbed-attention and skip-layer guidance are not)"
            )

    def tick(self) -> None:
        self.step, self.passes = self.step + 1, 0


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


@contextmanager
def ticking(
    pipe: Any,
    on_start: Callable[[], None] = lambda: None,
    on_tick: Callable[[Tick], None] = lambda tick: None,
) -> Iterator[Clock]:
    """A clock that a pipeline's scheduler and denoiser drive, for as long as the `with` lasts.

    on_start is called when the scheduler is set, on_tick after every step, before the clock moves on.
    """
    clock = Clock()
    scheduler = pipe.scheduler

    def set_timesteps(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        clock.start(len(scheduler.timesteps))
        on_start()

    def step(
        original: Callable[..., Any],
        model_output: Any,
        timestep: Any,
        sample: Any,
        *args: Any,
        **kw: Any,
    ) -> Any:
        result = original(model_output, timestep, sample, *args, **kw)
        counted = getattr(scheduler, "step_index", None)  # moved on by the step just taken
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        on_tick(
            Tick(None if counted is None else counted - 1, timestep, model_output, sample, after)
        )
        clock.tick()
        return result

    def begin_pass(module: nn.Module, args: Any) -> None:
        if clock.running:
            clock.begin_pass()

    with replaced(scheduler, "set_timesteps", set_timesteps), replaced(scheduler, "step", step):
        handle = denoiser_of(pipe).register_forward_pre_hook(begin_pass, prepend=True)
        try:
            yield clock
        finally:
            handle.remove()
