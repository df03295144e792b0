"""A call whose numbers are not finite is an error, which names where they first were not."""

from collections.abc import Mapping

import numpy as np
import torch

from stepscope.hooks.call import Call
from stepscope.hooks.errors import NonFiniteError
from stepscope.hooks.estimate import Levels
from stepscope.hooks.observe import MEASURES, PASS_STREAMS, Observer


def refuse_damaged_image(call: Call) -> None:
    if call.decoded is not None and not torch.isfinite(call.decoded).all():
        raise NonFiniteError(
            "the VAE's output is not finite, and what the pipeline made an image of it is not one. "
            "A wider dtype for the VAE (float32) is the usual cure"
        )


def refuse_non_finite(made: Mapping[str, np.ndarray], observer: Observer, level: Levels) -> None:
    """Raise NonFiniteError that names the first step and block where something was not finite."""
    ran = len({step for step, _ in observer.passes})
    after = np.concatenate([made["latents"][:, 1:ran], made["final_latents"][:, None]], 1)
    bad = np.logical_not(np.isfinite(after.reshape(*after.shape[:2], -1)).all(-1))
    if not bad.any():
        return
    step = int(np.flatnonzero(bad.any(0))[0])
    blocks = np.zeros(len(observer.blocks), bool)
    image = MEASURES.index("residual"), slice(None), PASS_STREAMS.index("image")
    for (at, _), values in observer.norms.read().items():
        if at == step:
            shaped = values.reshape(len(MEASURES), len(blocks), len(PASS_STREAMS), -1)
            blocks |= (~np.isfinite(shaped[image])).any(-1)
    where = (
        f"block {observer.blocks[int(blocks.argmax())].name}"
        if blocks.any()
        else "no block (the output alone)"
    )
    raise NonFiniteError(
        f"latents are not finite after step {step} (sigma {float(level.sigma[step]):.3f}), in batch "
        f"places {np.flatnonzero(bad[:, step]).tolist()}; first in {where}. "
        "A wider dtype (backbone.dtype=bfloat16 or float32) is the usual cure"
    )
