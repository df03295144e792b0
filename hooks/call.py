"""What one pipeline call shows besides its blocks: scheduler steps, stage times, prompt, seeds, image."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from hooks.clock import Tick
from hooks.patch import replaced
from hooks.stopwatch import Moment, Stopwatch
from hooks.vocabulary import STAGES


@dataclass
class Call:
    """One pipeline call so far.

    ticks: one for each scheduler step. moments: the end of each step, the first the loop's start.
    image: the VAE's output (batch, rgb, row, column) in [-1, 1], None if it was not decoded.
    """

    watch: Stopwatch
    ticks: list[Tick] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    stages: list[tuple[str, Moment, Moment]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    image: torch.Tensor | None = None

    def stage_seconds(self, **known: float) -> list[float]:
        """Seconds of each of `STAGES`; NaN for a stage that did not run and is not `known`."""
        total = {stage: float("nan") for stage in STAGES} | known
        for stage, start, end in self.stages:
            spent = self.watch.seconds(start, end)
            total[stage] = spent if total[stage] != total[stage] else total[stage] + spent
        return [total[stage] for stage in STAGES]

    def step_seconds(self) -> list[float]:
        """Seconds of each step, the adapter's network and both branches included."""
        return [
            self.watch.seconds(a, b) for a, b in zip(self.moments, self.moments[1:], strict=False)
        ]


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

    def encode_prompt(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        prompt = kwargs.get("prompt", args[0] if args else None)
        if prompt is not None and not call().prompts:  # the negative prompt comes second
            call().prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        return timed("text", original, *args, **kwargs)

    def prepare_latents(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            generators = value if isinstance(value, list) else [value]
            if generators and all(isinstance(g, torch.Generator) for g in generators):
                call().seeds = [g.initial_seed() for g in generators]
        return original(*args, **kwargs)

    def decode(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = timed("vae", original, *args, **kwargs)
        call().image = result[0] if isinstance(result, tuple) else result.sample
        return result

    for owner, name, around in (
        (pipe, "encode_prompt", encode_prompt),
        (pipe, "prepare_latents", prepare_latents),
        (pipe.vae, "decode", decode),
        (pipe.vae, "encode", partial(timed, "vae")),
    ):
        stack.enter_context(replaced(owner, name, around))
    for stage, network in networks.items():
        _time_network(stack, stage, network, call)


def _time_network(
    stack: ExitStack, stage: str, network: nn.Module, call: Callable[[], Call]
) -> None:
    starts: list[Moment] = []

    def before(module: nn.Module, args: Any) -> None:
        starts.append(call().watch.now())

    def after(module: nn.Module, args: Any, output: Any) -> None:
        call().stages.append((stage, starts.pop(), call().watch.now()))

    stack.callback(network.register_forward_pre_hook(before, prepend=True).remove)
    stack.callback(network.register_forward_hook(after).remove)
