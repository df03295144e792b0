"""The methods that edit an organism: which rows each needs, and what is done to them after planting."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float

from stepscope.hooks.edits import Edit, Scale
from stepscope.probes.planting.grown import Grown
from stepscope.probes.planting.operations import Given, Values
from stepscope.probes.planting.organism import Place
from stepscope.probes.replay import continue_rows

EDITS = ("zero", "mean", "swap", "denoise", "alone")
"""Zeros, the mean over people, or another person's values at one place; the person's values at one place
of the run on another person; and zeros at every place but one."""


@dataclass(frozen=True)
class Row:
    """One edited run. target: whose identity is looked for. place: the one that the method is about."""

    method: str
    target: int
    place: Place

    def person(self, grown: Grown) -> int:
        """The face that the adapter is given."""
        return grown.bench.other(self.target) if self.method == "denoise" else self.target


Finals = Mapping[Row, Float[np.ndarray, "channel y x"]]


def rows_of(grown: Grown) -> list[Row]:
    """Every edit that changes a value: at a place that holds zeros in every run none does."""
    return [
        Row(method, target, place)
        for method in EDITS
        for place in grown.organism.filled
        for target in grown.targets
    ]


def edited(grown: Grown, rows: Sequence[Row], size: int) -> Finals:
    """Final latents of edited runs. A run begins at its place's step: what is before is the unedited run.

    size: rows of one call, at most.
    """
    found: dict[Row, np.ndarray] = {}
    for start, some in batches(rows, size):
        people = [row.person(grown) for row in some]
        begun = np.stack(
            [_begun(grown, row, person) for row, person in zip(some, people, strict=True)]
        )
        edits = [*grown.edits(people, start), *_made(grown, some, start)]
        cells = grown.bench.cells(people)
        final = continue_rows(grown.bench.loaded, cells, begun, start, edits).final
        found |= dict(zip(some, final, strict=True))
    return found


def batches(rows: Sequence[Row], size: int) -> Iterator[tuple[int, list[Row]]]:
    """Rows that begin at one step, at most `size` together."""
    for start, of in groupby(sorted(rows, key=lambda r: r.place.step), lambda r: r.place.step):
        some = list(of)
        yield from ((start, some[i : i + size]) for i in range(0, len(some), size))


def _begun(grown: Grown, row: Row, person: int) -> np.ndarray:
    """x_t (channel, y, x) before the place's step; with zeros at all places before, of `alone`."""
    if row.method == "alone":
        return grown.bench.without.latents[0, row.place.step]
    return grown.base.latents[person, row.place.step]


def _made(grown: Grown, some: Sequence[Row], start: int) -> Iterator[Edit]:
    """The methods' edits of a batch, which come after those that plant."""
    bench, kept = grown.bench, grown.base.values
    groups = bench.groups
    kinds = dict.fromkeys((row.method, row.place) for row in some)
    for method, place in kinds:
        rows = [i for i, row in enumerate(some) if (row.method, row.place) == (method, place)]
        targets = [some[i].target for i in rows]
        sites, here = groups[place.group], Edit("*.adapter", Scale(0.0), steps=(0, 1), rows=rows)
        if method == "zero":
            yield replace(here, sites=sites)
        elif method == "alone":
            yield replace(here, sites=[s for s in bench.sites if s not in sites])
            if start + 1 < bench.steps:
                yield replace(here, steps=(1, None))
        else:
            people = {
                "mean": [0] * len(rows),
                "swap": [bench.other(target) for target in targets],
                "denoise": targets,
            }[method]
            values = _means(kept, sites, start) if method == "mean" else kept
            yield Edit(sites, Given(values, people, start), steps=(0, 1), rows=rows)


def _means(kept: Values, sites: Sequence[str], step: int) -> dict[tuple[str, int], torch.Tensor]:
    return {(site, step): kept[site, step].mean(0, keepdim=True) for site in sites}
