"""Whether a call fits its run, checked before its steps are computed.

A run that is not made yet (None) fits every call.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stepscope.hooks.assemble import Axes
from stepscope.hooks.errors import RunError
from stepscope.hooks.layout import full_variable
from stepscope.hooks.parts import Parts
from stepscope.hooks.store import Run

# What says which model a run is of. Its adapters, guidance and seeds are told call by call.
MODEL = ("models", "dtype", "autocast", "pipeline", "scheduler", "capture")

SHOWN = 3  # differences that one line names


def check_same_model(run: Run | None, about: Mapping[str, Any]) -> None:
    """Raise RunError if the run is of another model than a call under these attributes."""
    if run is None:
        return
    for name in MODEL:
        then, now = run.attributes.get(name), json.loads(json.dumps(about[name]))
        if then is not None and then != now:
            raise RunError(
                f"{run.path} was recorded with another {_difference(name, then, now)}. Record into "
                "another run"
            )


def check_same_schedule(run: Run | None, timesteps: Sequence[float]) -> None:
    """Raise RunError if the run's timesteps are no part of those that the scheduler was set to."""
    if run is None:
        return
    theirs = run.read("timestep")
    steps = len(theirs)
    mine = np.array(timesteps, np.float32)
    parts = [mine[i : i + steps] for i in range(len(mine) - steps + 1)]
    if not np.isnan(theirs).all() and not any(np.array_equal(p, theirs) for p in parts):
        raise RunError(
            f"{run.path} was recorded on another schedule: {steps} steps at timesteps "
            f"{theirs[0]:.6g} to {theirs[-1]:.6g}, and this call has {len(mine)} at {mine[0]:.6g} to "
            f"{mine[-1]:.6g}. Record into another run"
        )


def check_same_axes(run: Run | None, axes: Axes) -> None:
    """Raise RunError if the run lacks a branch or a stream of a call that has begun."""
    if run is None:
        return
    for axis, names, mine in (
        ("branch", "branches", axes.branches),
        ("stream", "streams", axes.streams),
    ):
        theirs = run.read(axis).tolist()
        if not set(mine) <= set(theirs):
            raise RunError(
                f"{run.path} has the {names} {', '.join(theirs)}, and this call has "
                f"{', '.join(mine)}: record into another run"
            )


def sizes_of(
    pipe: Any, parts: Parts, latents: torch.Tensor
) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """The last axes of what is stored of a call whose first step has ended, and names of axes of its own.

    latents: before that step.
    """
    tokens = parts.denoiser.passes[0, 0].tokens
    latent = tuple(parts.family.unpack(latents, tokens).shape[1:])
    steps = getattr(pipe, "num_timesteps", None)  # those that the call will run
    sizes = {"x0": latent if steps is None else (steps, *latent)}
    axes: set[str] = set()
    for site, (token, channel) in parts.denoiser.shapes.items():
        sizes[site] = token, channel
        axes |= {*full_variable(site, token, channel).dims}
    return sizes, axes


def _difference(name: str, then: Any, now: Any) -> str:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        other = [key for key in {**now, **then} if then.get(key) != now.get(key)]
        shown = ", ".join(f"{key} {then.get(key)} -> {now.get(key)}" for key in other[:SHOWN])
        return f"{name}: {shown}" + (f" and {len(other) - SHOWN} more" if other[SHOWN:] else "")
    return f"{name}: {then} -> {now}"
