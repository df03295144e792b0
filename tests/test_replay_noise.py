"""Other noise for a clean estimate is what each scheduler itself makes of the two."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from stepscope.hooks.estimate import levels
from stepscope.probes.replay import MEMORYLESS, noised

SCHEDULERS: dict[str, Any] = {
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "euler": EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    "ddim": DDIMScheduler(beta_schedule="scaled_linear"),
}


def test_every_scheduler_is_tried():
    assert {*map(type, SCHEDULERS.values())} == {*MEMORYLESS}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_is_noised_as_the_scheduler_does(name):
    scheduler = SCHEDULERS[name]
    scheduler.set_timesteps(5)
    draw = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(1, 4, 8, 8, generator=draw), torch.randn(1, 4, 8, 8, generator=draw)
    sigma = levels(scheduler, range(5), torch.as_tensor(scheduler.timesteps).float()).sigma
    for step, timestep in enumerate(scheduler.timesteps):
        when = timestep.reshape(1)
        own = (
            scheduler.scale_noise(x0, when, noise)
            if name == "flow"
            else scheduler.add_noise(x0, noise, when)
        )
        found = noised(scheduler, x0.numpy(), noise.numpy(), float(sigma[step]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, own, rtol=1e-5, atol=1e-5)
