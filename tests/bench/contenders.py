"""Ways to get the same 228 norms a step: ours, plain torch hooks, baukit's TraceDict, nnsight.

Every way reduces both streams' attention and block outputs of all 57 blocks with one call each of
the same kernel, `torch.linalg.vector_norm`, so that only the machinery differs. Ours stores them in a
Zarr run, with latents, x0 estimates, schedule and timings; the others keep them in a list, and move
them into one array once a call. baukit and nnsight are used where they are installed; neither is a
dependency.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepscope.hooks import record
from tests.bench.narrow import TEXT_TOKENS

Norms = list[Tensor]


def norm(stream: Tensor) -> Tensor:
    """L2 norm over tokens and channels, (batch,)."""
    return torch.linalg.vector_norm(stream, 2, (1, 2))


def gathered(norms: Norms) -> np.ndarray:
    """The norms of a call on the host, (step x place x stream, batch)."""
    return torch.stack(norms).cpu().numpy() if norms else np.empty((0, 1))


def streams(kind: str, output: Any) -> tuple[Tensor, Tensor]:
    """The two streams of a block's output, a double block's attention or a single block's."""
    if kind == "single":
        return output[:, :TEXT_TOKENS], output[:, TEXT_TOKENS:]
    return output[0], output[1]


def places(transformer: Any) -> dict[str, str]:
    """Module names to hook, each with the kind of its output."""
    found = {}
    for group, kind in (("transformer_blocks", "double"), ("single_transformer_blocks", "single")):
        for i in range(len(getattr(transformer, group))):
            found[f"{group}.{i}.attn"] = kind
            found[f"{group}.{i}"] = "block"
    return found


@contextmanager
def nothing(pipe: Any, folder: Path) -> Iterator[Norms]:
    yield []


@contextmanager
def stepscope(pipe: Any, folder: Path) -> Iterator[Norms]:
    with record(pipe, folder / "run.zarr"):
        yield []


@contextmanager
def plain_hooks(pipe: Any, folder: Path) -> Iterator[Norms]:
    norms: Norms = []

    def hook_for(kind: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            for stream in streams(kind, output):
                norms.append(norm(stream))

        return hook

    modules = dict(pipe.transformer.named_modules())
    handles = [
        modules[name].register_forward_hook(hook_for(kind))
        for name, kind in places(pipe.transformer).items()
    ]
    yield norms
    for handle in handles:
        handle.remove()


@contextmanager
def baukit_trace_dict(pipe: Any, folder: Path) -> Iterator[Norms]:
    trace_dict = importlib.import_module("baukit.nethook").TraceDict
    norms: Norms = []
    kinds = places(pipe.transformer)

    def reduce(output: Any, layer: str) -> Any:
        for stream in streams(kinds[layer], output):
            norms.append(norm(stream))
        return output

    with trace_dict(pipe.transformer, list(kinds), retain_output=False, edit_output=reduce):
        yield norms


@contextmanager
def nnsight_trace(pipe: Any, folder: Path) -> Iterator[Norms]:
    nnsight = importlib.import_module("nnsight")
    transformer, norms = pipe.transformer, []
    traced = nnsight.NNsight(transformer)
    kinds = places(transformer)

    class Shim:
        """Stands in for the transformer: every call is one trace."""

        def __getattr__(self, name: str) -> Any:
            return getattr(transformer, name)

        def __call__(self, **kwargs: Any) -> Any:
            with traced.trace(**kwargs):
                saved = nnsight.save([])
                for name, kind in kinds.items():
                    module = traced
                    for part in name.split("."):
                        module = module[int(part)] if part.isdigit() else getattr(module, part)
                    for stream in streams(kind, module.output):
                        saved.append(norm(stream))
                output = nnsight.save(traced.output)
            norms.extend(saved)
            return output

    object.__setattr__(pipe, "transformer", Shim())
    yield norms
    object.__setattr__(pipe, "transformer", transformer)


CONTENDERS: dict[str, Callable[[Any, Path], Any]] = {
    "nothing": nothing,
    "stepscope, into a Zarr run": stepscope,
    "plain torch hooks, into an array": plain_hooks,
    "baukit TraceDict, into an array": baukit_trace_dict,
    "nnsight trace, into an array": nnsight_trace,
}
