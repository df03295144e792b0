"""What one pipeline call was given and made, besides what its blocks show."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from stepscope.hooks import compiled
from stepscope.hooks.arguments import described
from stepscope.hooks.clock import Tick
from stepscope.hooks.families.arguments import argument
from stepscope.hooks.fingerprint import of_bytes
from stepscope.hooks.patch import replaced
from stepscope.hooks.stopwatch import Moment, Stopwatch
from stepscope.hooks.vocabulary import STAGES


@dataclass
class Call:
    """One pipeline call so far.

    arguments: by name, defaults included. described: these as JSON, as they were when the call began.
    noise: `seed N` or `state HASH` of each generator that the call was given, as it was then; empty if it
    was given none, or its latents.
    ticks: one for each scheduler step. branches: of each step, those of each of its passes.
    begun: when the step's first network began, or the step before it ended. ended: when each ended.
    settled: the latents after the last step's callback. batch: samples that are denoised together.
    decoded: the VAE's output, None if nothing was decoded. given: what it was made of.
    """

    watch: Stopwatch
    arguments: Mapping[str, Any] = field(default_factory=dict)
    described: str = "{}"
    noise: list[str] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)
    branches: list[list[tuple[str, ...]]] = field(default_factory=list)
    begun: Moment = None
    ended: list[Moment] = field(default_factory=list)
    stages: list[tuple[str, Moment, Moment]] = field(default_factory=list)
    settled: torch.Tensor | None = None
    batch: int | None = None
    decoded: torch.Tensor | None = None
    given: torch.Tensor | None = None

    @classmethod
    def begin(cls, watch: Stopwatch, arguments: Mapping[str, Any]) -> "Call":
        return cls(watch, arguments, described(arguments), noise_of(arguments))

    def stage_seconds(self, **known: float) -> list[float]:
        """Seconds of each of `STAGES`; NaN for a stage that did not run and is not `known`."""
        total = {stage: float("nan") for stage in STAGES} | known
        for stage, start, end in self.stages:
            spent = self.watch.seconds(start, end)
            total[stage] = spent if total[stage] != total[stage] else total[stage] + spent
        return [total[stage] for stage in STAGES]

    def step_seconds(self) -> list[float]:
        """Seconds of each step that ran, the adapter's network and all passes included."""
        moments = [self.begun, *self.ended]
        return [self.watch.seconds(a, b) for a, b in pairwise(moments)]

    def texts(self, name: str, batch: int) -> list[str]:
        """`prompt` or `negative_prompt` of each sample; empty where the call was not given it."""
        given = self.arguments.get(name)
        if given is None:
            return [""] * batch
        texts = [given] if isinstance(given, str) else list(given)
        # num_images_per_prompt repeats each prompt and keeps the repeats together
        return [str(texts[i * len(texts) // batch]) for i in range(batch)]


def noise_of(arguments: Mapping[str, Any]) -> list[str]:
    """What each generator says of the noise that it will make: its seed if it is fresh, else its state."""
    given = arguments.get("generator")
    if given is None or arguments.get("latents") is not None:
        return []
    generators = given if isinstance(given, list) else [given]
    told = []
    for generator in generators:
        samples = sum(other is generator for other in generators)
        told.append(_noise(generator) + (drawn_for(samples) if samples > 1 else ""))
    return told


def drawn_for(samples: int) -> str:
    """What is said of a generator that made the noise of several samples, none of it alone."""
    return f", drawn from for {samples} samples"


def _noise(generator: torch.Generator) -> str:
    state = generator.get_state()
    fresh = torch.Generator(generator.device).manual_seed(generator.initial_seed()).get_state()
    if torch.equal(state, fresh):
        return f"seed {generator.initial_seed()}"
    return f"state {of_bytes(state.cpu().numpy().tobytes())}"


def follow(
    stack: ExitStack, pipe: Any, call: Callable[[], Call], networks: dict[str, nn.Module]
) -> None:
    """Keep `call()` up to date by listening to the pipeline's own methods, until `stack` closes.

    networks: stage -> the network that it runs.
    """

    def timed(stage: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = call().watch.now()
        result = original(*args, **kwargs)
        call().stages.append((stage, start, call().watch.now()))
        return result

    def prepare_latents(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        latents = result[0] if isinstance(result, tuple) else result
        call().batch = len(latents)
        return result

    def decode(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call().given = argument(args, kwargs, 0, "z")
        result = timed("vae", original, *args, **kwargs)
        call().decoded = result[0] if isinstance(result, tuple) else getattr(result, "sample", None)
        return result

    for owner, name, around in (
        (pipe, "encode_prompt", partial(timed, "text")),
        (pipe, "prepare_latents", prepare_latents),
        (getattr(pipe, "vae", None), "decode", decode),
        (getattr(pipe, "vae", None), "encode", partial(timed, "vae")),
    ):
        if hasattr(owner, name):
            stack.enter_context(replaced(owner, name, around))
    for stage, network in networks.items():
        _time_network(stack, stage, network, call)


def _time_network(
    stack: ExitStack, stage: str, network: nn.Module, call: Callable[[], Call]
) -> None:
    starts: list[Moment] = []

    def before(module: nn.Module, args: Any) -> None:
        starts[:] = [call().watch.now()]
        if call().begun is None:
            call().begun = starts[-1]

    def after(module: nn.Module, args: Any, output: Any) -> None:
        call().stages.append((stage, starts[0], call().watch.now()))

    first = compiled.before(network, before, prepend=True, outside=True)
    stack.callback(first.remove)
    stack.callback(compiled.after(network, after, outside=True).remove)
