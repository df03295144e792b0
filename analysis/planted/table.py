"""The benchmark's table: AUROC of every method on every kind of organism, and a sentence from it."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from stepscope.analysis.bootstrap import Bounds
from stepscope.analysis.planted.auroc import auroc, interval
from stepscope.analysis.planted.methods import EDITS, METHODS, NORMS
from stepscope.analysis.planted.result import Result
from stepscope.probes.plan import counted
from stepscope.probes.planting.organism import KINDS

PRIOR = "place alone (no measurement)"
"""A control: how often other organisms have identity at a place, which no method measures."""
ALL, AGAINST = "all", "against decoys"
"""Columns beside the kinds: every organism; and those with decoys, over the cells that hold identity or a
decoy alone."""


class Entry(NamedTuple):
    """One method on one kind of organisms; low and high are NaN where there are fewer than five."""

    method: str
    kind: str
    auroc: float
    low: float
    high: float
    organisms: int


def table(results: Sequence[Result]) -> pd.DataFrame:
    """AUROC of each method on each kind, over the organisms that passed their check."""
    return pd.DataFrame(
        _entries([one for one in results if one.passed]), columns=list(Entry._fields)
    )


def areas(results: Sequence[Result], method: str, kind: str) -> np.ndarray:
    """AUROC of a method on each organism of a kind (organism,), NaN-free."""
    some = [one for one in results if _of(kind)(one)]
    scores = [_prior(results, one) if method == PRIOR else one.scores[method] for one in some]
    cells = [one.filled if kind == AGAINST else np.ones_like(one.truth) for one in some]
    each = zip(scores, some, cells, strict=True)
    return np.array([auroc(score[cell], one.truth[cell]) for score, one, cell in each])


def _entries(results: Sequence[Result]) -> Iterator[Entry]:
    for method in (*METHODS, PRIOR):
        for kind in (*KINDS, AGAINST, ALL):
            found = areas(results, method, kind)
            if len(found):
                mean, low, high = map(float, interval(found))
                yield Entry(method, kind, mean, low, high, len(found))


def _of(kind: str) -> Callable[[Result], bool]:
    if kind == ALL:
        return lambda one: True
    if kind == AGAINST:
        return lambda one: bool(one.organism.decoys)
    return lambda one: one.organism.kind == kind


def _prior(results: Sequence[Result], one: Result) -> np.ndarray:
    others = [other.truth for other in results if other is not one]
    return np.mean(others, 0) if others else np.zeros(one.truth.shape)


def markdown(found: pd.DataFrame) -> str:
    """The table as markdown: a row for each method, a column for each kind, mean AUROC [95 % interval]."""
    entries = by_method(found)
    kinds = next(iter(entries.values())).values()
    lines = [
        ["method", *(f"{one.kind.replace('_', ' ')} ({one.organisms})" for one in kinds)],
        ["---"] * (len(kinds) + 1),
        *([method, *(_told(*one[2:5]) for one in of.values())] for method, of in entries.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def by_method(found: pd.DataFrame) -> dict[str, dict[str, Entry]]:
    """Entries by method, then by kind, in the table's order."""
    entries: dict[str, dict[str, Entry]] = {}
    for one in _each(found):
        entries.setdefault(one.method, {})[one.kind] = one
    return entries


def _each(found: pd.DataFrame) -> list[Entry]:
    return [Entry(*row) for row in found.itertuples(index=False)]


def _told(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f}" if np.isnan(low) else f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _mean(values: np.ndarray) -> str:
    return _told(*map(float, interval(values)))


def sentence(results: Sequence[Result]) -> str:
    """What a norm heatmap can and cannot tell, from the numbers; empty without organisms of both sorts.

    The best of the norms is compared with the mean of all edits, so that no edit is picked by its score.
    """
    some = [one for one in results if one.passed]
    plain = [one for one in some if not one.organism.decoys]
    if not plain or len(plain) == len(some):
        return ""
    quiet = areas(plain, "contribution", ALL)
    norms = {name: areas(some, name, AGAINST) for name in NORMS}
    best = max(norms, key=lambda name: norms[name].mean())
    edits = np.mean([areas(some, name, AGAINST) for name in EDITS], 0)
    more = edits - norms[best]
    quietly, both = (counted(len(some), "organism") for some in (quiet, edits))
    return (
        "Where nothing else is added, the norm of what the adapter adds finds the planted cells (AUROC "
        f"{_mean(quiet)}, {quietly}). Among cells that hold either identity or a decoy as loud "
        f"({both}), the best of the norms ({best}) has {_mean(norms[best])} and the mean of the "
        f"{len(EDITS)} edits {_mean(edits)}, {_mean(more)} more: "
        f"{_conclusion(interval(quiet), interval(more))}."
    )


def _conclusion(quiet: Bounds, more: Bounds) -> str:
    if np.isnan([quiet.low, more.low]).any():
        return "these are too few organisms for a conclusion"
    where = "a norm heatmap shows where the adapter adds something"
    if not float(quiet.low) > 0.5:
        where = "a norm heatmap did not even show where the adapter adds something"
    if float(more.low) > 0:
        return f"{where}, and cannot tell as edits can whether that is identity"
    if float(more.high) < 0:
        return f"{where}, and told identity from decoys better than edits did"
    return f"{where}, and these organisms do not show that edits tell identity from decoys better"


def failing(found: pd.DataFrame) -> list[str]:
    """Methods and kinds of which the interval does not lie above chance, in words."""
    below: dict[str, list[str]] = {}
    for one in _each(found):
        if one.method != PRIOR and one.low <= 0.5:
            below.setdefault(one.method, []).append(one.kind.replace("_", " "))
    return [f"{method}: {', '.join(kinds)}" for method, kinds in below.items()]
