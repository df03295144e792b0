"""Runs of a few numbers, made without a pipeline."""

from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks.layout import Layout
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import Variable


def declared(kind: str, shape: tuple[int, ...], name: str) -> Variable:
    return Variable(("sample", *(f"{name}_{i}" for i in range(len(shape)))), kind, "m", "a length")


def plan(**kinds: tuple[str, tuple[int, ...]]) -> Layout:
    """A run of these variables, besides the two that every run has."""
    variables = {n: (declared(kind, shape, n), shape) for n, (kind, shape) in kinds.items()}
    variables["done"] = Variable(("sample",), "bool", "1", "written last"), ()
    for name in ("sigma", "timestep"):
        variables[name] = Variable(("step",), "float32", "1", "of the schedule"), (3,)
    return Layout(variables, {"step": ("step", np.arange(3))})


LENGTH = {"length": ("float32", (4,))}
STEPS = {name: np.arange(3, dtype=np.float32) for name in ("sigma", "timestep")}


def row(number: int) -> dict[str, np.ndarray]:
    """The variables of one sample of a run of `LENGTH`."""
    return {"length": np.arange(4, dtype=np.float32) + number}


def empty(path: Path) -> Run:
    """A run of `LENGTH` without samples."""
    run = Run.create(path, plan(**LENGTH), [], {})
    run.write_steps(STEPS)
    return run


def filled(path: Path, samples: int = 2, **attributes: Any) -> Run:
    """A run of `LENGTH` whose samples are done."""
    run = Run.create(path, plan(**LENGTH), [{"face": "ann"}] * samples, attributes)
    run.write_steps(STEPS)
    for i in range(samples):
        run.write(i, row(i))
    return run
