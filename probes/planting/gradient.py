"""Gradient times activation at the adapter's sites, of one step at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from stepscope.hooks.patch import replaced
from stepscope.probes.planting.grown import Grown
from stepscope.probes.replay import continue_rows

RESIDUALS = ("controlnet_block_samples", "controlnet_single_block_samples")


def gradient_times_activation(grown: Grown) -> Float[np.ndarray, "target group step"]:
    """First-order effect of an organism's residuals on x0 of the same step, toward the person.

    The sum over tokens and channels of residual x d(x0 . u) / d(residual), where u is the unit vector from
    the final latents of the run on the other person to those of the run on the target. The recogniser is
    an ONNX file, which has no gradient, and later steps are not followed: x0 = x_t - sigma v of one step.
    """
    bench, targets = grown.bench, list(grown.targets)
    others = [bench.other(target) for target in targets]
    away = torch.from_numpy(grown.base.final[targets] - grown.base.final[others])
    toward = bench.loaded.study.family.packed(
        away / away.flatten(1).norm(dim=1)[:, None, None, None]
    )
    sigmas, found = [], []

    def differentiated(original: Callable[..., Any], *args: Any, **more: Any) -> Any:
        uses = [use for name in RESIDUALS for use in more.get(name) or ()]
        with torch.enable_grad():
            leaves = [use.detach().clone().requires_grad_() for use in uses]
            left = iter(leaves)
            given = {name: [next(left) for _ in more.get(name) or ()] for name in RESIDUALS}
            made = original(*args, **{**more, **given})
            along = (made[0].float() * toward.to(made[0].device)).sum()
            slopes = torch.autograd.grad(along, leaves)
        found.append([
            (slope * leaf).detach().flatten(1).sum(1).cpu().numpy()
            for slope, leaf in zip(slopes, leaves, strict=True)
        ])  # fmt: skip
        return tuple(part.detach() for part in made)

    def keep(original: Callable[..., Any], output: Any, timestep: Any, sample: Any, **more: Any):
        sigmas.append(float(timestep) / 1000)
        return original(output, timestep, sample, **more)

    pipe, noise = bench.loaded.pipe, bench.noise(len(targets))
    with (
        replaced(pipe.transformer, "forward", differentiated),
        replaced(pipe.scheduler, "step", keep),
    ):
        continue_rows(bench.loaded, bench.cells(targets), noise, 0, grown.edits(targets))
    per_site = -np.array(sigmas)[:, None, None] * np.array(found)  # (step, site, target)
    at = {site: i for i, site in enumerate(bench.sites)}
    groups = [per_site[:, [at[s] for s in group]].sum(1) for group in bench.groups]
    return np.stack(groups, 1).transpose(2, 1, 0)
