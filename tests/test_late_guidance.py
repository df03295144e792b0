"""`true_cfg_start`: until then a step is one of the prompt alone, and from then on it is guided."""

from typing import Any

import numpy as np
import xarray as xr

from tests.adapter_words import pulid, unet_words
from tests.shell import Words

SCALE = 3.0


def made(typed: Any, words: Words, **more: Any) -> xr.Dataset:
    out = f"{'-'.join(map(str, more.values()))}.zarr"
    changed = [f"{name}={value}" for name, value in more.items()]
    answer = typed([*words, *changed, "record.velocity=true", f"out={out}"])
    assert answer.status == 0, answer.err
    return xr.open_zarr(out).load()


def test_a_flux_is_guided_from_its_step_on(typed, tmp_path):
    words = [*pulid(tmp_path, ["0"]), "guidance=1.0"]
    alone = made(typed, words, true_cfg=1.0)
    late = made(typed, words, true_cfg=SCALE, true_cfg_start=1)
    never = made(typed, words, true_cfg=SCALE, true_cfg_start=3)
    np.testing.assert_array_equal(never.final_latents, alone.final_latents)
    np.testing.assert_array_equal(late.latents[:, :2], alone.latents[:, :2])
    velocity = late.velocity.sel(branch="negative") + SCALE * (
        late.velocity.sel(branch="positive") - late.velocity.sel(branch="negative")
    )
    sigma = [*late.sigma.values, 0.0]
    ends = [*late.latents.transpose("step", ...)[1:], late.final_latents]
    for step, end in enumerate(ends):
        expected = late.latents[:, step] + (sigma[step + 1] - sigma[step]) * velocity[:, step]
        np.testing.assert_allclose(end, expected, rtol=0, atol=1e-5)
    assert np.abs(late.final_latents - alone.final_latents).max() > 1e-3


def test_a_u_net_is_guided_from_its_step_on(typed, tmp_path):
    words = unet_words("sd15")
    alone = made(typed, words, true_cfg=1.0)
    never = made(typed, words, true_cfg=SCALE, true_cfg_start=3)
    late = made(typed, words, true_cfg=SCALE, true_cfg_start=2)
    np.testing.assert_allclose(never.final_latents, alone.final_latents, rtol=0, atol=1e-4)
    np.testing.assert_allclose(late.latents[:, 2], alone.latents[:, 2], rtol=0, atol=1e-4)
    assert np.abs(late.final_latents - alone.final_latents).max() > 1e-2


def test_what_it_cannot_be_is_refused_and_what_changes_nothing_is_told(typed, tmp_path):
    words = unet_words("sd15", true_cfg=1.0)
    assert (
        "true_cfg_start=4: a step of the run is wanted, 0 to 3"
        in typed([*words, "true_cfg_start=4"]).line
    )
    told = typed([*words, "true_cfg_start=1", "--dry"]).out
    assert "note: true_cfg_start=1 changes nothing: true_cfg=1.0 is off" in told
