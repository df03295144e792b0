"""The result of one organism: its check and its scores, kept in a file of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.analysis.planted.methods import METHODS
from stepscope.analysis.planted.seen import Check, Judging, check, see
from stepscope.hooks import atomic
from stepscope.probes.planting.bench import Bench
from stepscope.probes.planting.grown import grow
from stepscope.probes.planting.organism import Organism


@dataclass(frozen=True)
class Result:
    """An organism with its check and, where it passes, each method's scores.

    truth: where identity was planted. filled: places that hold anything, identity or a decoy.
    """

    organism: Organism
    passed: bool
    check: Check
    truth: np.ndarray
    filled: np.ndarray
    scores: Mapping[str, np.ndarray]


def measured(
    organism: Organism,
    bench: Bench,
    judge: Judging,
    targets: int,
    rows: int,
    bar: tuple[float, float],
) -> Result:
    """Plant an organism, check it, and score every method on it if it passes.

    rows: of one call, at most. bar: see `Check.passes`.
    """
    grown = grow(organism, bench, range(targets))
    found = check(grown, judge)
    shape = len(bench.groups), bench.steps
    filled = np.zeros(shape, bool)
    for place in organism.filled:
        filled[place] = True
    passed, scores = found.passes(*bar), {}
    if passed:
        seen = see(grown, judge, rows)
        scores = {name: method(seen) for name, method in METHODS.items()}
    return Result(organism, passed, found, organism.truth(*shape), filled, scores)


def write(path: Path, result: Result, asked: Mapping[str, Any]) -> None:
    """Keep a result. asked: what decides it, as JSON values."""
    held = {
        "asked": asked,
        "passed": result.passed,
        "check": {name: value.tolist() for name, value in vars(result.check).items()},
        "truth": result.truth.tolist(),
        "filled": result.filled.tolist(),
        "scores": {name: scores.tolist() for name, scores in result.scores.items()},
    }
    atomic.put(path, json.dumps(held, indent=1).encode(), path.parent)


def read(path: Path, organism: Organism, asked: Mapping[str, Any]) -> Result | None:
    """The kept result; None where there is none, or it was asked for otherwise."""
    if not path.is_file():
        return None
    held = json.loads(path.read_text())
    return _result(held, organism) if held["asked"] == json.loads(json.dumps(asked)) else None


def read_all(folder: Path) -> list[Result]:
    """Every kept result of a benchmark, by name; none without the folder."""
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [_result(held, Organism.from_told(held["asked"]["organism"])) for held in kept]


def _result(held: Mapping[str, Any], organism: Organism) -> Result:
    on, off, each = (np.array(held["check"][name]) for name in ("on", "off", "each"))
    return Result(
        organism,
        held["passed"],
        Check(on, off, each.reshape(-1, len(on))),
        np.array(held["truth"]),
        np.array(held["filled"]),
        {name: np.array(scores) for name, scores in held["scores"].items()},
    )
