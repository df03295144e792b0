"""x0 at every step is the one that the scheduler works with, for each scheduler and prediction type."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import torch

from stepscope.hooks.clock import Listener, Tick, listening
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.estimate import SCHEDULERS, clean_estimate, levels

STEPS = 5
SHAPE = (2, 4, 6, 6)

USUAL = ("epsilon", "sample", "v_prediction")
# What each scheduler's own source accepts as `prediction_type`.
PREDICTIONS: dict[type, tuple[str, ...]] = {
    diffusers.FlowMatchEulerDiscreteScheduler: ("flow",),
    diffusers.EulerDiscreteScheduler: USUAL,
    diffusers.EulerAncestralDiscreteScheduler: ("epsilon", "v_prediction"),
    diffusers.LMSDiscreteScheduler: USUAL,
    diffusers.DDIMScheduler: USUAL,
    diffusers.DDPMScheduler: USUAL,
    diffusers.PNDMScheduler: ("epsilon", "v_prediction"),
    diffusers.LCMScheduler: USUAL,
    diffusers.TCDScheduler: USUAL,
    diffusers.DPMSolverMultistepScheduler: (*USUAL, "flow_prediction"),
    diffusers.UniPCMultistepScheduler: (*USUAL, "flow_prediction"),
    diffusers.DEISMultistepScheduler: (*USUAL, "flow_prediction"),
}
MEMBERS = [(kind, prediction) for kind in SCHEDULERS for prediction in PREDICTIONS[kind]]
each_member = pytest.mark.parametrize(
    ("kind", "prediction"), MEMBERS, ids=lambda value: getattr(value, "__name__", value)
)


def made(kind: type, prediction: str, **config: Any) -> Any:
    accepted = inspect.signature(kind).parameters
    options = {"prediction_type": prediction, "clip_sample": False, "skip_prk_steps": True}
    if prediction == "flow_prediction":
        options["use_flow_sigmas"] = True
    return kind(**{k: v for k, v in (options | config).items() if k in accepted})


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def estimates(scheduler: Any, ticks: list[Tick]) -> torch.Tensor:
    timesteps = torch.stack([torch.as_tensor(tick.timestep).float() for tick in ticks])
    level = levels(scheduler, [tick.index for tick in ticks], timesteps)
    x, output = (torch.stack([getattr(tick, k) for tick in ticks]) for k in ("before", "output"))
    return clean_estimate(scheduler, level, x, output)


def signal_and_noise(scheduler: Any, step: int, timestep: Any) -> tuple[Any, Any]:
    """(alpha, s) of x = alpha clean + s noise, from the scheduler's own tables."""
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[step])
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        sigma: Any = scheduler.sigmas
        return 1 - sigma[step], sigma[step]
    if hasattr(scheduler, "sigmas"):
        return torch.ones(()), scheduler.sigmas[step]
    abar = scheduler.alphas_cumprod[timestep]
    return abar**0.5, (1 - abar) ** 0.5


def test_every_scheduler_has_its_predictions_here():
    assert set(PREDICTIONS) == set(SCHEDULERS)


@each_member
def test_x0_undoes_the_scheduler_own_noising(kind, prediction):
    """Known clean latents, noised by `add_noise`, and the output that a perfect model would give."""
    scheduler = made(kind, prediction)
    scheduler.set_timesteps(STEPS)
    clean, noise = normal(1), normal(2)
    add = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else None
    ticks = []
    for i, t in enumerate(scheduler.timesteps):
        noised = add(clean, t[None], noise) if add else scheduler.add_noise(clean, noise, t[None])
        alpha, s = signal_and_noise(scheduler, i, t)
        torch.testing.assert_close(noised, alpha * clean + s * noise, rtol=1e-4, atol=1e-4)
        output = {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": (alpha * noise - s * clean) / (alpha**2 + s**2) ** 0.5,
            "flow": noise - clean,
            "flow_prediction": noise - clean,
        }[prediction]
        counts = hasattr(scheduler, "step_index")
        ticks.append(Tick(i if counts else None, t, output, noised, noised))
    found = estimates(scheduler, ticks)
    torch.testing.assert_close(found, clean.expand(len(ticks), *SHAPE), rtol=0, atol=1e-3)


@dataclass(eq=False)
class Loop:
    """A pipeline that is nothing but a denoising loop."""

    scheduler: Any
    loop: Callable[[], None]
    unet: Any = field(default_factory=torch.nn.Identity)

    def __call__(self) -> None:
        self.loop()


def ticks_of(scheduler: Any, loop: Callable[[], None]) -> list[Tick]:
    """What the clock sees of a loop under the scheduler."""
    ticks: list[Tick] = []
    pipe = Loop(scheduler, loop)
    with listening(pipe, Listener(tick=ticks.append)):
        pipe()
    return ticks


def walk(scheduler: Any) -> tuple[list[Tick], torch.Tensor]:
    """A denoising loop on random outputs: what the clock saw, and the scheduler's own estimates."""
    own: list[torch.Tensor] = []
    arguments = inspect.signature(scheduler.step).parameters
    extra: dict[str, Any] = {"generator": torch.Generator().manual_seed(9), "eta": 1.0}
    extra = {k: v for k, v in extra.items() if k in arguments}
    convert = getattr(scheduler, "convert_model_output", None)
    converted: list[torch.Tensor] = []
    if convert is not None:

        def keep(*args: Any, **kwargs: Any) -> torch.Tensor:
            converted.append(convert(*args, **kwargs))
            return converted[-1]

        scheduler.convert_model_output = keep

    def loop() -> None:
        scheduler.set_timesteps(STEPS)
        x = normal(0) * scheduler.init_noise_sigma
        for i, t in enumerate(scheduler.timesteps):
            scheduler.scale_model_input(x, t)
            result = scheduler.step(normal(i + 1), t, x, **extra, return_dict=False)
            seen = converted[-1] if convert is not None else result[1]
            own.append(unwrapped(scheduler, seen, x, i, t))
            x = result[0]

    ticks = ticks_of(scheduler, loop)
    return ticks, torch.stack(own)


def unwrapped(
    scheduler: Any, seen: torch.Tensor, x: torch.Tensor, step: int, timestep: Any
) -> torch.Tensor:
    """x0 out of what the scheduler returns in its place."""
    alpha, s = signal_and_noise(scheduler, step, timestep)
    match type(scheduler).__name__:
        case "LCMScheduler":  # after its boundary condition: c_skip x + c_out x0
            skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
            return (seen - skip * x) / out
        case "TCDScheduler":  # noised again to t = 0 (eta = 1): a x0 + b eps
            a, b = signal_and_noise(scheduler, step, torch.tensor(0))
            return (seen - b * x / s) / (a - b * alpha / s)
        case "DEISMultistepScheduler":  # as noise
            return (x - s * seen) / alpha
        case _ if getattr(scheduler.config, "algorithm_type", "").endswith("dpmsolver"):
            return (x - s * seen) / alpha  # DPM-Solver, without ++, works on noise
        case _:
            return seen


DPM_SOLVER = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
SILENT = (diffusers.PNDMScheduler, diffusers.FlowMatchEulerDiscreteScheduler)  # they return no x0


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [member for member in MEMBERS if member[0] not in SILENT],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_x0_is_what_the_scheduler_works_with(kind, prediction):
    scheduler = made(kind, prediction)
    ticks, own = walk(scheduler)
    torch.testing.assert_close(estimates(scheduler, ticks), own, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "prediction", "config"),
    [
        (diffusers.DDIMScheduler, "v_prediction", {"rescale_betas_zero_snr": True}),
        (diffusers.DDIMScheduler, "epsilon", {"timestep_spacing": "trailing", "clip_sample": True}),
        (diffusers.DDPMScheduler, "sample", {"clip_sample": True, "clip_sample_range": 0.7}),
        (diffusers.LCMScheduler, "epsilon", {"clip_sample": True}),
        (diffusers.EulerDiscreteScheduler, "v_prediction", {"use_karras_sigmas": True}),
        (diffusers.EulerDiscreteScheduler, "epsilon", {"timestep_spacing": "trailing"}),
        (diffusers.DPMSolverMultistepScheduler, "epsilon", {"use_karras_sigmas": True}),
        (diffusers.DPMSolverMultistepScheduler, "epsilon", {"algorithm_type": "sde-dpmsolver++"}),
        (diffusers.DPMSolverMultistepScheduler, "epsilon", DPM_SOLVER),
        (diffusers.DDIMScheduler, "epsilon", {"thresholding": True}),
        (diffusers.UniPCMultistepScheduler, "v_prediction", {"thresholding": True}),
        (diffusers.UniPCMultistepScheduler, "epsilon", {"use_exponential_sigmas": True}),
    ],
    ids=str,
)
def test_x0_follows_the_scheduler_options(kind, prediction, config):
    scheduler = made(kind, prediction, **config)
    ticks, own = walk(scheduler)
    torch.testing.assert_close(estimates(scheduler, ticks), own, rtol=1e-3, atol=1e-3)


def test_flow_matching_takes_the_last_step_to_x0():
    """Its schedule ends at sigma 0, where x - sigma v is what the step itself returns."""
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)

    def loop() -> None:
        scheduler.set_timesteps(STEPS)
        x = normal(0)
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(normal(i + 1), t, x, return_dict=False)[0]

    ticks = ticks_of(scheduler, loop)
    torch.testing.assert_close(estimates(scheduler, ticks)[-1], ticks[-1].after)


def test_unknown_prediction_type_is_refused():
    scheduler = made(diffusers.DDIMScheduler, "noise")
    scheduler.set_timesteps(1)
    tick = Tick(None, scheduler.timesteps[0], normal(0), normal(1), normal(2))
    with pytest.raises(UnsupportedPipelineError, match=r"'noise' of DDIMScheduler"):
        estimates(scheduler, [tick])


def test_unknown_scheduler_is_refused():
    with pytest.raises(UnsupportedPipelineError, match=r"HeunDiscreteScheduler are not known"):
        levels(diffusers.HeunDiscreteScheduler(), [0], torch.zeros(1))
