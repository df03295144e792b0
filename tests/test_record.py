"""`record` changes no bit of a pipeline's outputs, leaves it as it was, and stores what it did."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxPipeline

from stepscope.hooks import Capture, StepscopeWarning, record
from stepscope.hooks.errors import RunError
from tests.cases import CASES, PROMPT, wiring

TIMINGS = ("step_seconds", "stage_seconds")


class Stop(Exception):
    """What a user's own code raises in the middle of a call."""


def stop_at(step: int):
    def callback(pipe: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if index == step:
            raise Stop
        return {}

    return callback


def test_recording_changes_no_bit(case, recorded):
    plain = case(seeds=(0, 1))
    assert np.isfinite(plain).all()
    assert plain.std() > 0.01
    assert recorded(case).images.tobytes() == plain.tobytes()


def test_pipeline_is_left_as_it_was_found(case, recorded):
    around = recorded(case).wiring
    assert around["during"] != around["before"]
    assert around["after"] == around["before"]


def test_exceptions_leave_no_hook_and_keep_what_was_finished(case, recorded, tmp_path):
    """One finished call, one that fails and is caught, one more, and one that ends the recording."""
    path, undisturbed = tmp_path / "run.zarr", recorded(case)

    def calls() -> None:
        with record(case.pipe, path, Capture(velocity=True)):
            case(seeds=(0, 1))
            with pytest.raises(Stop):
                case(seeds=(5, 6, 7), callback_on_step_end=stop_at(2))
            case(seeds=(0, 1))
            case(callback_on_step_end=stop_at(2))

    with pytest.raises(Stop):
        calls()
    assert wiring(case.pipe) == undisturbed.wiring["before"]
    assert case(seeds=(0, 1)).tobytes() == undisturbed.images.tobytes()
    expected = undisturbed.run.drop_vars([*TIMINGS, "sample", "call"])
    run = xr.open_zarr(path).drop_vars([*TIMINGS, "sample", "call"])
    xr.testing.assert_equal(run.isel(sample=[0, 1]), expected)
    xr.testing.assert_equal(run.isel(sample=[2, 3]), expected)


def test_unused_recording_leaves_nothing(tmp_path):
    with pytest.warns(StepscopeWarning, match="was not called within the `with`"):
        with record(CASES["sd"].pipe, tmp_path / "run.zarr"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_calls_and_recordings_append(tmp_path):
    case, path = CASES["flux_cfg"], tmp_path / "run.zarr"
    suit = "a woman in a suit"
    with record(case.pipe, path):
        images = [case(seeds=(0, 1)), case(seeds=(2,), prompt=[suit])]
    with record(case.pipe, path):
        images.append(case(seeds=(3,)))
    run = xr.open_zarr(path)
    assert run.sample.values.tolist() == [0, 1, 2, 3]
    assert run.seed.values.tolist() == [0, 1, 2, 3]
    assert run.batch_size.values.tolist() == [2, 2, 1, 1]
    assert run.prompt.values.tolist() == [PROMPT, PROMPT, suit, PROMPT]
    assert run.done.values.all()
    np.testing.assert_array_equal(run.image, (np.concatenate(images) * 255).round())


@pytest.mark.parametrize("other", [{"steps": 2}, {"height": 64}, {"output_type": "latent"}])
def test_call_that_does_not_fit_is_refused_and_adds_nothing(other, tmp_path):
    case, path = CASES["flux"], tmp_path / "run.zarr"
    with record(case.pipe, path):
        case()
    with pytest.raises(RunError, match=r"run\.zarr"), record(case.pipe, path):
        case(**other)
    assert xr.open_zarr(path).done.values.tolist() == [True]


def test_several_images_a_prompt_keep_their_prompt_and_seed(tmp_path):
    case = CASES["sd"]
    with record(case.pipe, tmp_path / "run.zarr"):
        case(seeds=(4, 5, 6, 7), prompt=["a man", "a woman"], num_images_per_prompt=2)
    run = xr.open_zarr(tmp_path / "run.zarr")
    assert run.prompt.values.tolist() == ["a man", "a man", "a woman", "a woman"]
    assert run.seed.values.tolist() == [4, 5, 6, 7]


def test_labels_are_those_given(tmp_path):
    case, path = CASES["sd"], tmp_path / "run.zarr"
    with record(case.pipe, path) as recording:
        recording.label([{"face": "ann", "prompt": "mine"}, {"face": "bob", "seed": 9}])
        case(seeds=(0, 1))
        case(seeds=(2,))
        recording.label([{"face": "ann"}])
        with pytest.raises(RunError, match="named 1 samples and the call makes 2"):
            case(seeds=(0, 1))
    run = xr.open_zarr(path)
    assert run.face.values.tolist() == ["ann", "bob", ""]
    assert run.prompt.values.tolist() == ["mine", PROMPT, PROMPT]
    assert run.seed.values.tolist() == [0, 9, 2]


def test_batch_comes_out_as_its_samples(case, recorded, tmp_path):
    with record(case.pipe, tmp_path / "run.zarr"):
        case(seeds=(1,))
    alone, pair = xr.open_zarr(tmp_path / "run.zarr"), recorded(case).run
    assert pair.seed.values.tolist() == [0, 1]
    for name in set(alone.data_vars) - {*TIMINGS, "image", "done"}:
        # Matrix products of another batch size differ in their last bits.
        np.testing.assert_allclose(
            pair[name][1], alone[name][0], rtol=2e-4, atol=1e-5, err_msg=str(name)
        )
    assert not np.allclose(pair.latents[0], pair.latents[1])


def test_latents_are_those_of_diffusers_own_callback(case, recorded):
    seen: list[torch.Tensor] = []

    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(values["latents"])
        return {}

    case(seeds=(0, 1), callback_on_step_end=callback)
    run = recorded(case).run
    after = np.concatenate([run.latents[:, 1:], run.final_latents.values[:, None]], 1)
    for step, latents in enumerate(seen):
        np.testing.assert_array_equal(after[:, step], unpacked(case, latents))


def unpacked(case, latents: torch.Tensor) -> torch.Tensor:
    if latents.ndim == 4:
        return latents
    return FluxPipeline._unpack_latents(
        latents, case.size["height"], case.size["width"], case.pipe.vae_scale_factor
    )


def test_schedule_is_the_scheduler_own(case, recorded):
    case()
    run, scheduler = recorded(case).run, case.pipe.scheduler
    np.testing.assert_array_equal(run.timestep, scheduler.timesteps)
    if hasattr(scheduler, "sigmas"):
        np.testing.assert_array_equal(run.sigma, scheduler.sigmas[:-1])
    else:
        abar = scheduler.alphas_cumprod[scheduler.timesteps]
        np.testing.assert_allclose(run.sigma, ((1 - abar) / abar).sqrt(), rtol=1e-6)


def test_outputs_are_kept_of_a_network_that_uses_their_memory_again(monkeypatch, tmp_path):
    """As one does that replays a CUDA graph (`torch.compile(mode="reduce-overhead")`)."""
    case = CASES["flux"]
    forward, memory = case.denoiser.forward, torch.empty(0)

    def into_the_same(*args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        (made,) = forward(*args, **kwargs)
        return (memory.resize_(made.shape).copy_(made),)

    monkeypatch.setattr(case.denoiser, "forward", into_the_same)
    with record(case.pipe, tmp_path / "run.zarr", Capture(velocity=True)):
        case()
    monkeypatch.undo()
    with record(case.pipe, tmp_path / "plain.zarr", Capture(velocity=True)):
        case()
    run, plain = (xr.open_zarr(tmp_path / f"{name}.zarr").load() for name in ("run", "plain"))
    for name in ("x0", "velocity", "final_latents"):
        np.testing.assert_array_equal(run[name], plain[name])


def test_image_is_the_pipeline_own(case, recorded):
    found = recorded(case)
    np.testing.assert_array_equal(found.run.image, (found.images * 255).round())


def test_stages_that_run_are_timed_and_others_are_missing(case, recorded):
    run = recorded(case).run
    ran = {"text", "denoiser", "vae"} | ({"adapter"} if "adapter_block" in run.dims else set())
    for stage in run.stage.values:
        seconds = run.stage_seconds.sel(stage=stage)
        assert np.isfinite(seconds).all() == (stage in ran), stage
        assert not (seconds <= 0).any()
    assert (run.step_seconds > 0).all()


def token_norms(latents: xr.DataArray) -> xr.DataArray:
    """Of each 2 x 2 latents with their channels, at each of them."""
    sums = (latents**2).sum("channel").coarsen(y=2, x=2).sum().transpose(..., "y", "x")
    whole = sums.values.repeat(2, -1).repeat(2, -2)
    return xr.DataArray(whole, dims=sums.dims) ** 0.5


def test_recorded_x0_is_the_estimate_from_the_guided_output(case, recorded):
    """Flows: x - sigma v. Euler (SDXL): x - sigma eps. DDIM (SD): (x - s eps) / alpha."""
    run = recorded(case).run
    output = run.velocity.isel(branch=0).astype("float64")
    if case.branches == 2:
        positive, negative = output, run.velocity.isel(branch=1).astype("float64")
        output = negative + case.weight * (positive - negative)
        if case.pipeline == "qwen":  # each token has the norm of the positive branch's
            output = output * token_norms(positive) / token_norms(output)
    expected = run.latents - run.sigma * output
    if case.pipeline in ("sd", "sd_controlnet"):
        abar = case.pipe.scheduler.alphas_cumprod[run.timestep.values].double()
        alpha, s = (xr.DataArray(v, dims="step") for v in (abar**0.5, (1 - abar) ** 0.5))
        expected = (run.latents - s * output) / alpha
    np.testing.assert_allclose(run.x0, expected.transpose(*run.x0.dims), rtol=1e-4, atol=1e-4)
