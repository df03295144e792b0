"""The clean-latent estimate x0 of every step, from what the scheduler was given.

Every scheduler listed here describes x_t = alpha x0 + s noise. `levels` gives (alpha, s) for its
steps; `clean_estimate` solves for x0 by the scheduler's prediction type.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffusers
import torch

from stepscope.hooks.clock import Tick
from stepscope.hooks.errors import UnsupportedPipelineError


class Levels(NamedTuple):
    """Signal and noise levels of a run's steps, each (step,), and sigma as the scheduler has it."""

    alpha: torch.Tensor
    s: torch.Tensor
    sigma: torch.Tensor


def _flow(scheduler: Any, indices: list[int], timesteps: torch.Tensor) -> Levels:
    """Rectified flow: x_t = (1 - sigma) x0 + sigma noise (Liu et al. 2023, eq. 1)."""
    sigma = scheduler.sigmas[indices].float().cpu()
    return Levels(1 - sigma, sigma, sigma)


def _variance_exploding(scheduler: Any, indices: list[int], timesteps: torch.Tensor) -> Levels:
    """x_t = x0 + sigma noise (Karras et al. 2022, section 2)."""
    sigma = scheduler.sigmas[indices].float().cpu()
    return Levels(torch.ones_like(sigma), sigma, sigma)


def _variance_preserving(scheduler: Any, indices: list[int], timesteps: torch.Tensor) -> Levels:
    """x_t = sqrt(abar) x0 + sqrt(1 - abar) noise (Ho et al. 2020, eq. 4); sigma is s over alpha."""
    abar = scheduler.alphas_cumprod.float().cpu()[timesteps.long().cpu()]
    alpha, s = abar.sqrt(), (1 - abar).sqrt()
    return Levels(alpha, s, s / alpha)


def _multistep(scheduler: Any, indices: list[int], timesteps: torch.Tensor) -> Levels:
    """Variance preserving, parametrised by sigma = s / alpha (DPM-Solver, Lu et al. 2022)."""
    sigma = scheduler.sigmas[indices].float().cpu()
    if scheduler.config.use_flow_sigmas:
        return Levels(1 - sigma, sigma, sigma)
    alpha = 1 / (sigma**2 + 1).sqrt()
    return Levels(alpha, sigma * alpha, sigma)


SCHEDULERS: dict[type, Callable[[Any, list[int], torch.Tensor], Levels]] = {
    diffusers.FlowMatchEulerDiscreteScheduler: _flow,
    diffusers.EulerDiscreteScheduler: _variance_exploding,
    diffusers.EulerAncestralDiscreteScheduler: _variance_exploding,
    diffusers.LMSDiscreteScheduler: _variance_exploding,
    diffusers.DDIMScheduler: _variance_preserving,
    diffusers.DDPMScheduler: _variance_preserving,
    diffusers.PNDMScheduler: _variance_preserving,
    diffusers.LCMScheduler: _variance_preserving,
    diffusers.TCDScheduler: _variance_preserving,
    diffusers.DPMSolverMultistepScheduler: _multistep,
    diffusers.UniPCMultistepScheduler: _multistep,
    diffusers.DEISMultistepScheduler: _multistep,
}
"""Schedulers whose steps can be read; one tick of theirs is one step of the run."""


def levels(scheduler: Any, indices: Sequence[int | None], timesteps: torch.Tensor) -> Levels:
    """Levels of the steps taken, from their places in `scheduler.sigmas` and their timesteps.

    A scheduler that does not count its steps has None for the places.

    Raises UnsupportedPipelineError for a scheduler that is not in `SCHEDULERS`.
    """
    for kind, read in SCHEDULERS.items():
        if isinstance(scheduler, kind):
            return read(scheduler, [i if i is not None else 0 for i in indices], timesteps)
    raise UnsupportedPipelineError(refusal(scheduler))


def schedule(scheduler: Any, ticks: Sequence[Tick], steps: int) -> tuple[Levels, torch.Tensor]:
    """Levels and timesteps of a call's steps, also of those at its end that did not run.

    steps: number of steps of the call; more than `ticks` where it was interrupted.
    """
    indices: list[int | None] = [tick.index for tick in ticks]
    taken = [torch.as_tensor(tick.timestep).float().cpu() for tick in ticks]
    if steps > len(ticks):
        every = [float(t) for t in scheduler.timesteps]
        last = indices[-1]
        place = last if last is not None else every.index(float(taken[-1]))
        rest = range(place + 1, place + 1 + steps - len(ticks))
        indices += [None if last is None else i for i in rest]
        taken += [torch.tensor(every[i]) for i in rest]
    timesteps = torch.stack(taken)
    return levels(scheduler, indices, timesteps), timesteps


def refusal(scheduler: Any) -> str:
    """Why a scheduler cannot be recorded, with those that can."""
    known = ", ".join(kind.__name__ for kind in SCHEDULERS)
    return f"the steps of its {type(scheduler).__name__} are not known; known: {known}"


def clean_estimate(
    scheduler: Any, level: Levels, sample: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    """x0 at every step, in float32, from latents and (guided) model outputs, both (step, batch, ...)."""
    alpha, s = (
        v.to(sample.device).reshape(-1, *[1] * (sample.ndim - 1)) for v in (level.alpha, level.s)
    )
    x, o = sample.float(), output.float()
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        return x - s * o
    match scheduler.config.prediction_type:
        case "epsilon":
            x0 = (x - s * o) / alpha
        case "sample":
            x0 = o
        case "flow_prediction":
            x0 = x - s * o
        case "v_prediction":
            # Salimans & Ho 2022, appendix D, after scaling x to unit variance (alpha is 1 if exploding).
            total = (alpha**2 + s**2).sqrt()
            x0 = (alpha * x / total - s * o) / total
        case other:
            raise UnsupportedPipelineError(
                f"prediction_type {other!r} of {type(scheduler).__name__} is not one of "
                "epsilon, sample, v_prediction, flow_prediction"
            )
    if scheduler.config.get("thresholding", False):  # Saharia et al. 2022, section 2.3
        return scheduler._threshold_sample(x0.flatten(0, 1)).unflatten(0, x0.shape[:2])
    if scheduler.config.get("clip_sample", False):
        limit = scheduler.config.get("clip_sample_range", 1.0)
        x0 = x0.clamp(-limit, limit)
    return x0
