"""Continue samples from their stored latents, each row with its own face and under its own edits."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stepscope.hooks.edits import Edit, edit
from stepscope.hooks.estimate import clean_estimate, levels
from stepscope.hooks.patch import replaced
from stepscope.probes import backbones, grid, infusenet
from stepscope.probes.models import Models
from stepscope.probes.replay import require_memoryless, unpack

Latents = Float[np.ndarray, "row channel y x"]


@dataclass
class Continued:
    """What came of rows that were continued. final: latents at the end; x0: of the first step."""

    final: Latents
    x0: Latents


def continue_rows(
    loaded: Models,
    rows: Sequence[grid.Cell],
    latents: Latents,
    start: int,
    edits: Sequence[Edit] = (),
    on_step: Callable[[], None] = lambda: None,
    sigmas: Sequence[float] | None = None,
) -> Continued:
    """Denoise rows from their x_t before the step `start` to the end, under edits.

    rows: the face and prompt of each. latents: x_t of each. edits: with steps counted from `start`.
    sigmas: of the run's steps, where the models have another schedule; None for their own.
    Raises UnsupportedPipelineError for a scheduler whose steps depend on earlier ones, EditError for an
    edit that touches nothing.
    """
    scheduler, pipe = require_memoryless(loaded.pipe.scheduler), loaded.pipe
    first: list[Tensor] = []

    def cut(original: Callable[..., None], *args: Any, **more: Any) -> None:
        original(*args, **more)
        if sigmas is not None:
            scheduler.sigmas = torch.tensor([*sigmas, 0.0]).to(scheduler.sigmas)
            times = scheduler.sigmas[:-1] * scheduler.config.num_train_timesteps
            scheduler.timesteps = times.to(scheduler.timesteps)
        scheduler.timesteps, scheduler.sigmas = (
            scheduler.timesteps[start:],
            scheduler.sigmas[start:],
        )

    def keep(original: Callable[..., Any], output: Any, timestep: Any, sample: Any, **more: Any):
        if not first:
            level = levels(scheduler, [0], torch.as_tensor(timestep).float().cpu().reshape(1))
            first.append(clean_estimate(scheduler, level, sample[None], output[None])[0])
        return original(output, timestep, sample, **more)

    cells = [replace(cell, index=i) for i, cell in enumerate(rows)]
    with ExitStack() as stack:
        call = stack.enter_context(loaded.ready())
        stack.enter_context(replaced(scheduler, "set_timesteps", cut))
        stack.enter_context(replaced(scheduler, "step", keep))
        if edits:
            stack.enter_context(edit(pipe, edits))
        arguments = {**call, **window_after(loaded, start), "output_type": "latent"}
        final: Any = replace(loaded, latents=latents).sample(cells, arguments, on_step)
    sides = latents.shape[-2:]
    return Continued(unpack(final, sides), unpack(first[0], sides))


def window_after(loaded: Models, start: int) -> dict[str, Any]:
    """The pipeline's arguments for the adapter's window, of the steps from `start` on.

    diffusers counts the window in fractions of the steps that a call runs.
    """
    study = loaded.study
    if study.adapter is None:
        return {}
    sigmas = backbones.schedule(loaded.pipe, study.steps, study.height, study.width)
    inside = infusenet.steps_inside(study.adapter, sigmas.tolist())
    left, count = [i - start for i in inside if i >= start], study.steps - start
    if not left:
        return {"controlnet_conditioning_scale": 0.0}
    return {
        "control_guidance_start": left[0] / count,
        "control_guidance_end": (left[-1] + 1) / count,
    }
