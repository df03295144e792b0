"""What comes of recording one call: right, refused on entry, or wrong, and in which words."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from hooks import Capture, record
from hooks.errors import UnsupportedPipelineError
from tests.cases import wiring
from tests.every_pipeline_calls import Call
from tests.oracle import truth
from tests.oracle_check import check


@dataclass(frozen=True)
class Outcome:
    """wrong: a line for each thing that is neither right nor refused. refused: the message, if it was.

    branches, streams: those of which any number is stored.
    """

    wrong: list[str] = field(default_factory=list)
    refused: str = ""
    branches: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()


def outcome(call: Call, folder: Path) -> Outcome:
    """Record the call into `folder`, and compare everything with a call that was not recorded."""
    pipe = call.pipe()
    refusal = refused_on_entry(pipe, folder)
    if refusal is not None:
        return refusal
    plain = call.pipe()
    known, left = truth(call, plain), wires(plain)
    arguments, path, passes = call.arguments(pipe), folder / "run.zarr", []
    before = wires(pipe)
    denoiser = getattr(pipe, "transformer", None) or pipe.unet
    handle = denoiser.register_forward_pre_hook(lambda module, args: passes.append(module))
    try:
        with record(pipe, path, Capture(velocity=True)):
            returned = pipe(**arguments)
    except UnsupportedPipelineError as error:
        handle.remove()
        return refusal_of(pipe, str(error), before, len(passes))
    handle.remove()
    if not path.exists():
        return Outcome(["nothing was recorded, and no word said"])
    run = xr.open_zarr(path).load()
    wrong = check(call, run, known)
    if not same(returned, known.returned):
        wrong.append("recording changed what the pipeline returns")
    if wires(pipe) != left:
        wrong.append(f"the pipeline is left changed: {differing(left, wires(pipe))}")
    norms = run["residual_norm"].notnull() | run["attention_norm"].notnull()
    return Outcome(wrong, "", _held(norms, "branch"), _held(norms, "stream"))


def refused_on_entry(pipe: Any, folder: Path) -> Outcome | None:
    """The refusal of `record` itself, or None if it takes the pipeline."""
    before = wires(pipe)
    try:
        with record(pipe, folder / "unused.zarr", Capture(velocity=True)):
            pass
    except UnsupportedPipelineError as error:
        return refusal_of(pipe, str(error), before, 0)
    return None


def refusal_of(pipe: Any, message: str, before: dict[str, Any], passes: int) -> Outcome:
    """A refusal costs no pass, names the class, and leaves the pipeline as it was."""
    wrong = []
    if passes:
        wrong.append(f"refused only after {passes} passes of the denoiser: {message}")
    if type(pipe).__name__ not in message:
        wrong.append(f"the refusal does not name {type(pipe).__name__}: {message}")
    if wires(pipe) != before:
        wrong.append(f"the refused pipeline is left changed: {differing(before, wires(pipe))}")
    return Outcome(wrong, message)


def wires(pipe: Any) -> dict[str, Any]:
    """Hooks, instance attributes, and the attention processors of every component."""
    found = (
        wiring(pipe)
        if getattr(pipe, "scheduler", None) is not None
        else {"pipe": sorted(vars(pipe))}
    )
    for part, component in pipe.components.items():
        for name, processor in getattr(component, "attn_processors", {}).items():
            found[f"{part}.{name} processor"] = type(processor).__name__
    return found


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


def _held(norms: xr.DataArray, axis: str) -> tuple[str, ...]:
    seen = norms.any([dim for dim in norms.dims if dim != axis])
    return tuple(str(value) for value in norms[axis].values[seen.values])
