"""What a call's adapters add, on the places that a run has: those of the call that made it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.injections.residuals import CONTROLNET
from stepscope.hooks.store import Run

NAME, AXIS = "contribution", "injection"


def without_place(run: Run | None, injections: Sequence[Injection]) -> str:
    """A sentence on the adapters of a call that a run has no place for; empty if there is none."""
    if run is None:
        return ""
    theirs = {*_places(run)}
    lost = list(dict.fromkeys(one.adapter for one in injections if _key(run, one) not in theirs))
    if not lost:
        return ""
    return (
        f"{run.path} has no place for what {', '.join(lost)} adds, since its first call was without: it is "
        "not stored. Record into another run"
    )


def on_places(arrays: Mapping[str, np.ndarray], made: Any, run: Run) -> dict[str, np.ndarray]:
    """A call's variables with `contribution` as the run has it; NaN at places that the call does not have.

    made: the call, a `Collected`. Runs before schema version 4 have a ControlNet's alone, along `block`.
    """
    found = dict(arrays)
    mine = found.pop(NAME, None)
    if not run.has(NAME):
        return found
    places = _places(run)
    axes = made.axes
    spread = np.full((axes.batch, axes.steps, len(axes.branches), len(places)), np.nan, np.float32)
    if mine is not None:
        for i, one in enumerate(_injections(made)):
            if _key(run, one) in places:
                spread[..., places.index(_key(run, one))] = mine[..., i]
    found[NAME] = spread
    return found


def _injections(made: Any) -> list[Injection]:
    words = [made.layout.coordinates[f"{AXIS}_{word}"][1].tolist() for word in Injection._fields]
    return [Injection(*one) for one in zip(*words, strict=True)]


def _places(run: Run) -> list[str]:
    if not run.has(NAME):
        return []
    return [str(name) for name in run.read(AXIS if run.has(AXIS) else "block")]


def _key(run: Run, one: Injection) -> str:
    """What a run calls a place; what no place is called where it has none of the kind."""
    if run.has(AXIS):
        return one.name
    return one.block if (one.adapter, one.stream) == (CONTROLNET, "image") else ""
