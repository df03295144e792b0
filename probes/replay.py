"""Call a pipeline at a run's stored latents: evaluate each of them once, or continue from one of them.

Both call the pipeline as the run did and only redirect its scheduler, so that timesteps, prompts, branches
and guidance are the run's; the adapter's input may differ, and edits may be made.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Tensor

from stepscope.hooks.alike import alike_once, networks_of
from stepscope.hooks.edits import Edit, edit
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.estimate import clean_estimate, levels
from stepscope.hooks.patch import replaced
from stepscope.probes import grid
from stepscope.probes.encoded_once import encoded_once
from stepscope.probes.models import Models

OnStep = Callable[[], None]
FLOW = FlowMatchEulerDiscreteScheduler
MEMORYLESS = (FLOW, EulerDiscreteScheduler, DDIMScheduler)
"""Schedulers of which a step follows from x_t and the output alone, as the pipelines call them."""


@dataclass
class SchedulerTrace:
    """The scheduler's packed inputs at each step, and the latents after the last step."""

    index: list[int | None] = field(default_factory=list)
    timestep: list[Tensor] = field(default_factory=list)
    output: list[Tensor] = field(default_factory=list)
    before: list[Tensor] = field(default_factory=list)
    after: Tensor | None = None


def evaluate_latents(
    loaded: Models,
    batch: Sequence[grid.Cell],
    stored: Float[np.ndarray, "sample step channel y x"],
    on_step: OnStep = lambda: None,
) -> tuple[Float[np.ndarray, "sample step channel y x"], Float[np.ndarray, "sample channel y x"]]:
    """x0 from one evaluation at each of a run's stored latents, and the latents after the last step.

    loaded: the run's models, with the adapter's setting for these evaluations. batch: the cells, whose
    faces the adapter receives. stored: x_t before each step. on_step: called after each step. The latents
    after the last step follow from the evaluation at the last stored x_t.

    Raises UnsupportedPipelineError for a scheduler whose steps depend on earlier ones.
    """
    scheduler = require_memoryless(loaded.pipe.scheduler)
    family = loaded.study.family
    packed = [family.packed(torch.from_numpy(x)) for x in np.moveaxis(stored, 1, 0)]
    trace = SchedulerTrace()

    def redirect(
        original: Callable[..., Any], output: Any, timestep: Any, sample: Any, **more: Any
    ):
        index = index_of(scheduler, timestep)
        after, *rest = original(output, timestep, sample, **more)
        trace.index.append(index)
        at = len(trace.index)
        trace.timestep.append(torch.as_tensor(timestep).float().cpu())
        trace.output.append(output)
        trace.before.append(sample)
        trace.after = after
        return (packed[at].to(sample) if at < len(packed) else after, *rest)

    with replaced(scheduler, "step", redirect):
        run_pipeline(loaded, batch, stored[:, 0], on_step)
    level = levels(scheduler, trace.index, torch.stack(trace.timestep))
    x0 = clean_estimate(scheduler, level, torch.stack(trace.before), torch.stack(trace.output))
    assert trace.after is not None
    sides = stored.shape[-2:]
    return unpack(loaded, x0.transpose(0, 1), sides), unpack(loaded, trace.after, sides)


@dataclass(frozen=True)
class Continued:
    """What came of rows that were continued. final: latents at the end; x0: of the first step."""

    final: Float[np.ndarray, "row channel y x"]
    x0: Float[np.ndarray, "row channel y x"]


def continue_rows(
    loaded: Models,
    rows: Sequence[grid.Cell],
    latents: Float[np.ndarray, "row channel y x"],
    start: int,
    edits: Sequence[Edit] = (),
    on_step: OnStep = lambda: None,
    sigmas: Sequence[float] | None = None,
    steps: int | None = None,
    *,
    once: bool = False,
) -> Continued:
    """Denoise rows from their x_t before the step `start` to the end, under edits.

    rows: the face and prompt of each. latents: x_t of each. edits: with steps counted from `start`.
    sigmas: of the run's steps, where the models have another schedule; None for their own.
    steps: only so many, of an adapter whose window holds all of them; None to the end.
    once: rows that begin alike go through a block as one, up to the first edit that they do not share; that
    rounds as a smaller batch does. Else they are computed as they were recorded, bit for bit.
    Raises UnsupportedPipelineError for a scheduler whose steps depend on earlier ones, EditError for an
    edit that touches nothing.
    """
    scheduler: Any = require_memoryless(loaded.pipe.scheduler)
    first: list[Tensor] = []

    def cut(original: Callable[..., None], *args: Any, **more: Any) -> None:
        original(*args, **more)
        if sigmas is not None:
            require_flow(scheduler)
            scheduler.sigmas = torch.tensor([*sigmas, 0.0]).to(scheduler.sigmas)
            times = scheduler.sigmas[:-1] * scheduler.config.num_train_timesteps
            scheduler.timesteps = times.to(scheduler.timesteps)
        end = None if steps is None else start + steps
        scheduler.timesteps = scheduler.timesteps[start:end]
        if hasattr(scheduler, "sigmas"):
            scheduler.sigmas = scheduler.sigmas[start : None if end is None else end + 1]

    def keep(original: Callable[..., Any], output: Any, timestep: Any, sample: Any, **more: Any):
        if not first:
            level = levels(scheduler, [0], torch.as_tensor(timestep).float().cpu().reshape(1))
            first.append(clean_estimate(scheduler, level, sample[None], output[None])[0])
        return original(output, timestep, sample, **more)

    joined = alike_once(*networks_of(loaded.pipe)) if once else nullcontext()
    with joined, replaced(scheduler, "set_timesteps", cut), replaced(scheduler, "step", keep):
        final = run_pipeline(loaded, rows, latents, on_step, start, edits)
    sides = latents.shape[-2:]
    return Continued(unpack(loaded, final, sides), unpack(loaded, first[0], sides))


def run_pipeline(
    loaded: Models,
    batch: Sequence[grid.Cell],
    start: np.ndarray,
    on_step: OnStep,
    first: int = 0,
    edits: Sequence[Edit] = (),
) -> Tensor:
    """The pipeline's packed final latents, from `start` (sample, channel, y, x) instead of noise.

    first: the run's step at which the call begins.
    """
    cells = [replace(cell, index=i) for i, cell in enumerate(batch)]
    edited = edit(loaded.pipe, edits) if edits else nullcontext()
    starting = loaded.study.family.starting(loaded.pipe)
    with loaded.ready(first) as call, encoded_once(loaded.pipe.vae), starting, edited:
        latents = {"output_type": "latent"}
        return replace(loaded, latents=start).sample(cells, {**call, **latents}, on_step)  # pyright: ignore[reportReturnType]


def require_memoryless(scheduler: Any) -> Any:
    """The scheduler. Raises UnsupportedPipelineError where its steps depend on earlier ones."""
    if isinstance(scheduler, MEMORYLESS):
        return scheduler
    raise UnsupportedPipelineError(not_memoryless(type(scheduler).__name__))


def not_memoryless(scheduler: str) -> str:
    """Why a run with a scheduler of this class is not continued."""
    known = ", ".join(kind.__name__ for kind in MEMORYLESS)
    return (
        f"a run with {scheduler} cannot continue from stored latents: its steps may depend on earlier "
        f"ones, or draw noise; known: {known}"
    )


def noised(scheduler: Any, x0: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
    """x_t of clean latents and noise at a level of the run's, as this scheduler steps it.

    sigma: as the scheduler has it, of which hooks/estimate.py says what each kind means by it. Raises
    UnsupportedPipelineError for a scheduler whose steps depend on earlier ones.
    """
    require_memoryless(scheduler)
    if isinstance(scheduler, FLOW):
        return (1 - sigma) * x0 + sigma * noise
    exploding = isinstance(scheduler, EulerDiscreteScheduler)
    return (x0 + sigma * noise) / (1.0 if exploding else sqrt(1 + sigma**2))


def require_flow(scheduler: Any) -> None:
    """Raise UnsupportedPipelineError for a scheduler that cannot take over another's sigmas."""
    if not isinstance(scheduler, FLOW):
        raise UnsupportedPipelineError(no_flow(type(scheduler).__name__))


def no_flow(scheduler: str) -> str:
    """Why a run with a scheduler of this class is not continued by another backbone."""
    return f"{scheduler} cannot take over another backbone's steps: {FLOW.__name__} can"


def index_of(scheduler: Any, timestep: Any) -> int | None:
    """The place of a step that is about to be taken; None for a scheduler that does not count."""
    if not hasattr(scheduler, "step_index"):
        return None
    if scheduler.step_index is None:
        return int(scheduler.index_for_timestep(timestep))
    return int(scheduler.step_index)


def unpack(
    loaded: Models, latents: Tensor, sides: Sequence[int]
) -> Float[np.ndarray, "*batch channel y x"]:
    """Latents as a run stores them, in float32, from those that the scheduler steps. sides: (y, x)."""
    return loaded.study.family.unpacked(latents, sides).float().cpu().numpy()
