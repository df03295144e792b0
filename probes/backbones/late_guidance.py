"""Classifier-free guidance that begins after some steps, as PuLID's `timestep_to_start_cfg` has it.

Until then the negative pass has no effect: diffusers is handed the positive one's output in its place, and
negative + scale (positive - negative) is the positive one to the last bit. The pass itself is run, for its
pipelines always call it, and what is recorded inside of it is what it did.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from stepscope.hooks.clock import Listener, denoiser_of, listening
from stepscope.hooks.compiled import after


@contextmanager
def guided_from(pipe: Any, start: int, *, first: int = 0) -> Iterator[None]:
    """While it lasts, calls with two branches are guided from the run's step `start` on.

    first: the run's step at which the calls begin. The branches are two passes of a step, the positive one
    first (FLUX), or two halves of a batch, the negative one first (Stable Diffusion).
    """
    positive: list[Tensor] = []
    with listening(pipe, Listener()) as clock:

        def see(module: nn.Module, args: Any, output: Any) -> Any:
            if not clock.running or clock.step + first >= start:
                return None
            made = output[0]
            if isinstance(module, UNet2DConditionModel):
                half = made.chunk(2)[1]
                return (torch.cat([half, half]), *output[1:])
            if clock.nth == 0:
                positive[:] = [made]
                return None
            return (positive.pop(), *output[1:])

        handle = after(denoiser_of(pipe), see, outside=True)
        try:
            yield
        finally:
            handle.remove()
