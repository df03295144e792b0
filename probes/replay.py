"""A pipeline put onto latents that a run stored: one evaluation at each of them, or on from one of them.

Both call the pipeline as the run did, under its own scheduler, and only lead that scheduler: so what
is evaluated has the run's timesteps, prompts, branches and guidance, whatever the adapter is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from hooks.errors import UnsupportedPipelineError
from hooks.estimate import clean_estimate, levels
from hooks.patch import replaced
from probes import grid
from probes.models import Models

OnStep = Callable[[], None]


@dataclass
class Seen:
    """What a pipeline's scheduler was given at each step, packed, and what the last step made of it."""

    index: list[int] = field(default_factory=list)
    timestep: list[Tensor] = field(default_factory=list)
    output: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    after: Tensor | None = None


def estimates(
    loaded: Models,
    batch: Sequence[grid.Cell],
    stored: Float[np.ndarray, "sample step channel y x"],
    on_step: OnStep = lambda: None,
) -> tuple[Float[np.ndarray, "sample step channel y x"], Float[np.ndarray, "sample channel y x"]]:
    """x0 from one evaluation at each of a run's stored latents, and the latents after the last step.

    loaded: the run's models, with the adapter as it is to be for these evaluations. batch: the cells,
    whose faces are given to the adapter. stored: x_t before each step. The latents after the last
    step are those that the evaluation at the last stored ones leads to.
    """
    scheduler = one_step(loaded.pipe.scheduler)
    packed = [grid.pack(torch.from_numpy(x)) for x in np.moveaxis(stored, 1, 0)]
    seen = Seen()

    def lead(original: Callable[..., Any], output: Any, timestep: Any, sample: Any, **more: Any):
        (after,) = original(output, timestep, sample, **more)
        at = scheduler.step_index  # moved on by the step just taken
        seen.index.append(at - 1)
        seen.timestep.append(torch.as_tensor(timestep).float().cpu())
        seen.output.append(output)
        seen.before.append(sample)
        seen.after = after
        return (packed[at].to(sample) if at < len(packed) else after,)

    with replaced(scheduler, "step", lead):
        called(loaded, batch, stored[:, 0], on_step)
    level = levels(scheduler, seen.index, torch.stack(seen.timestep))
    x0 = clean_estimate(scheduler, level, torch.stack(seen.before), torch.stack(seen.output))
    assert seen.after is not None
    both = rearrange(x0, "step sample t c -> sample step t c"), seen.after
    return tuple(unpacked(x, stored.shape[-2:]) for x in both)  # pyright: ignore[reportReturnType]


def onward(
    loaded: Models,
    batch: Sequence[grid.Cell],
    stored: Float[np.ndarray, "sample channel y x"],
    step: int,
    on_step: OnStep = lambda: None,
) -> Float[np.ndarray, "sample channel y x"]:
    """Final latents of a run that goes on from its stored latents x_t before `step`."""
    scheduler = one_step(loaded.pipe.scheduler)

    def cut(original: Callable[..., None], *args: Any, **more: Any) -> None:
        original(*args, **more)
        scheduler.timesteps, scheduler.sigmas = scheduler.timesteps[step:], scheduler.sigmas[step:]

    with replaced(scheduler, "set_timesteps", cut):
        final = called(loaded, batch, stored, on_step)
    return unpacked(final, stored.shape[-2:])


def called(
    loaded: Models, batch: Sequence[grid.Cell], start: np.ndarray, on_step: OnStep
) -> Tensor:
    """The pipeline's packed latents, started from these instead of from noise."""
    cells = [replace(cell, index=i) for i, cell in enumerate(batch)]
    with loaded.ready() as call:
        latents = {"output_type": "latent"}
        return replace(loaded, latents=start).sample(cells, {**call, **latents}, on_step)  # pyright: ignore[reportReturnType]


def one_step(scheduler: Any) -> Any:
    """The scheduler, if a step of its depends on nothing before; else UnsupportedPipelineError."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return scheduler
    raise UnsupportedPipelineError(
        f"latents stored under {type(scheduler).__name__} cannot be gone on from: its steps may use "
        "the ones before; known: FlowMatchEulerDiscreteScheduler"
    )


def unpacked(latents: Tensor, sides: Sequence[int]) -> Float[np.ndarray, "*batch channel y x"]:
    """The inverse of `grid.pack`, in float32."""
    y, x = sides
    pattern = "... (y x) (c p q) -> ... c (y p) (x q)"
    return rearrange(latents.float().cpu(), pattern, y=y // 2, x=x // 2, p=2, q=2).numpy()
