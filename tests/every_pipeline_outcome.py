"""What comes of recording one call: right, refused on entry, or wrong, and in which words."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from stepscope.hooks import Capture, record
from stepscope.hooks.errors import UnsupportedPipelineError
from tests.every_pipeline_calls import Call
from tests.every_pipeline_made import arguments_of, pipeline_of
from tests.oracle import truth
from tests.oracle_check import check

CAPTURE = Capture("tokens", velocity=True)


@dataclass(frozen=True)
class Outcome:
    """wrong: a line for each thing that is neither right nor refused. refused: the message, if it was.

    branches: those that hold any number. streams: of each norm, those that do; the others are NaN.
    """

    wrong: list[str] = field(default_factory=list)
    refused: str = ""
    branches: tuple[str, ...] = ()
    streams: dict[str, tuple[str, ...]] = field(default_factory=dict)


def outcome(call: Call, folder: Path) -> Outcome:
    """Record the call into `folder`, and compare everything with a call that is not recorded."""
    pipe, path = pipeline_of(call), folder / "run.zarr"
    arguments, before = arguments_of(call), wires(pipe)
    returned, message = None, ""
    with counted(pipe) as passes:
        try:
            with record(pipe, path, CAPTURE):
                returned = pipe(**arguments)
        except UnsupportedPipelineError as error:
            message = str(error)
    if message:
        return refusal(pipe, message, before, len(passes))
    if not path.exists():
        return Outcome(["nothing was recorded, and no word said"])
    run, plain = xr.open_zarr(path).load(), pipeline_of(call)
    known = truth(call, plain)
    wrong = check(call, run, known)
    if not same(returned, known.returned):
        wrong.append("recording changed what the pipeline returns")
    if wires(pipe) != wires(plain):
        wrong.append(f"the pipeline is left changed: {differing(wires(plain), wires(pipe))}")
    norms = [name for name in run.data_vars if "stream" in run[name].dims]
    streams = {str(name): held(run[name], "stream") for name in norms}
    return Outcome(wrong, "", held(run["attention_norm"], "branch"), streams)


def entry(pipe: Any, folder: Path) -> Outcome:
    """What comes of a `with record` in which nothing is called."""
    before = wires(pipe)
    try:
        with warnings.catch_warnings(), record(pipe, folder / "run.zarr", CAPTURE):
            warnings.simplefilter("ignore")  # that nothing was called
    except UnsupportedPipelineError as error:
        return refusal(pipe, str(error), before, 0)
    return Outcome([f"{type(pipe).__name__} is taken, and no call of it is known here"])


def refusal(pipe: Any, message: str, before: dict[str, Any], passes: int) -> Outcome:
    """A refusal costs no pass, names the class, and leaves the pipeline as it was."""
    wrong = []
    if passes:
        wrong.append(f"refused only after {passes} passes of the denoiser: {message}")
    if type(pipe).__name__ not in message:
        wrong.append(f"the refusal does not name {type(pipe).__name__}: {message}")
    if wires(pipe) != before:
        wrong.append(f"the refused pipeline is left changed: {differing(before, wires(pipe))}")
    return Outcome(wrong, message)


@contextmanager
def counted(pipe: Any) -> Iterator[list[str]]:
    """A list that grows by each pass of the pipeline's denoiser."""
    passes: list[str] = []
    denoiser = getattr(pipe, "transformer", None) or pipe.unet

    def begins(module: Any, args: Any) -> None:
        passes.append(type(module).__name__)

    handle = denoiser.register_forward_pre_hook(begins)
    try:
        yield passes
    finally:
        handle.remove()


def wires(pipe: Any) -> dict[str, Any]:
    """Everything that recording could leave behind: classes, attributes, hooks, attention processors."""
    found: dict[str, Any] = {"class": type(pipe), "pipe": sorted(vars(pipe))}
    for part, component in pipe.components.items():
        found[part] = type(component), sorted(vars(component)) if component is not None else []
        if isinstance(component, nn.Module):
            for name, module in component.named_modules():
                inside = vars(module)
                hooks = [len(inside[kind]) for kind in HOOKS]
                found[f"{part}.{name}"] = len(inside), hooks, type(inside.get("processor"))
    return found


HOOKS = [
    name for name, value in vars(nn.Module()).items() if "hook" in name and isinstance(value, dict)
]
"""Where a module keeps its hooks of every kind."""


def differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    names = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    return ", ".join(sorted(names)[:3])


def same(one: Any, other: Any) -> bool:
    """Whether two results of a pipeline are equal, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return bool(one == other)


def held(norms: xr.DataArray, axis: str) -> tuple[str, ...]:
    """The names along an axis that hold any number."""
    seen = norms.notnull().any([dim for dim in norms.dims if dim != axis])
    return tuple(str(value) for value in norms[axis].values[seen.values])
