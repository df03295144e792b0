"""log-SNR of a stored run against the levels that each scheduler itself gives."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from stepscope.analysis.log_snr import log_snr
from stepscope.analysis.runs import open_run
from stepscope.hooks.estimate import SCHEDULERS, levels

MADE = [kind() for kind in SCHEDULERS]
MADE.append(UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"))


@pytest.mark.parametrize("scheduler", MADE, ids=lambda s: type(s).__name__)
def test_log_snr_is_that_of_the_schedulers_levels(scheduler):
    scheduler.set_timesteps(7)
    times = scheduler.timesteps
    found = levels(scheduler, range(len(times)), torch.as_tensor(times).float())
    expected = 2 * (found.alpha.double().log() - found.s.double().log())
    about = {"class": type(scheduler).__name__, **scheduler.config}
    got = log_snr(found.sigma.numpy(), about)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected[-1].item()) + 2e-3)
    assert (np.diff(got) >= 0).all()


def test_a_run_has_it_beside_sigma(pocket_run):
    run = open_run(pocket_run)
    assert run["log_snr"].dims == ("step",)
    sigma = run["sigma"].values.astype(float)
    assert run.attrs["scheduler"]["class"] == FlowMatchEulerDiscreteScheduler.__name__
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(run["log_snr"], 2 * np.log((1 - sigma) / sigma), rtol=1e-5)
    assert run["log_snr"][0] == -np.inf
    assert "log_snr" in run["x0"].coords
