"""A planted organism: the edits that plant it, its runs, and its runs without the planted identity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stepscope.hooks.edits import Edit, Operation, Scale
from stepscope.probes.planting.bench import Bench, Recorded
from stepscope.probes.planting.operations import Given, Values
from stepscope.probes.planting.organism import Organism, Place
from stepscope.probes.replay import continue_rows


@dataclass(frozen=True)
class Grown:
    """An organism on a bench. base: the run on every person. off: final latents of each target without
    the planted identity. each: with one part alone, for each part, where there are several.

    targets: the people whose identity is looked for.
    """

    organism: Organism
    bench: Bench
    targets: Sequence[int]
    base: Recorded
    decoys: Values
    off: Float[np.ndarray, "target channel y x"]
    each: Float[np.ndarray, "part target channel y x"]

    def edits(self, people: Sequence[int], start: int = 0) -> list[Edit]:
        """What plants the organism in rows that begin at a step."""
        whole = self.organism.identity
        rows = [whole] * len(people)
        return planting(self.organism, self.bench, self.decoys, people, rows, start)


def planting(
    organism: Organism,
    bench: Bench,
    decoys: Values,
    people: Sequence[int],
    carries: Sequence[frozenset[Place]],
    start: int = 0,
) -> list[Edit]:
    """Edits that leave the adapter's residual, scaled, at some places, and decoys or zeros elsewhere.

    people: of each row. carries: of each row, the places that carry the identity. start: the step at which
    the rows begin; the edits' steps are counted from it.
    """
    edits = []
    for step in range(start, bench.steps):
        window = step - start, step - start + 1
        for group, sites in enumerate(bench.groups):
            place = Place(group, step)
            carrying = [row for row, places in enumerate(carries) if place in places]
            rest = [row for row in range(len(people)) if row not in carrying]
            what: Operation = Scale(0.0)
            if place in organism.decoys:
                what = Given(decoys, [people[row] for row in rest], start)
            if carrying:
                edits.append(Edit(sites, Scale(organism.scale), steps=window, rows=carrying))
            if rest:
                edits.append(Edit(sites, what, steps=window, rows=rest))
    return edits


def grow(organism: Organism, bench: Bench, targets: Sequence[int]) -> Grown:
    """Plant an organism, and run it on every person and on the targets without the planted identity."""
    people = range(len(bench.people))
    decoys = bench.decoys(organism)
    whole = [organism.identity] * len(people)
    base = bench.recorded(people, planting(organism, bench, decoys, people, whole))
    parts = [frozenset(part) for part in organism.parts] if len(organism.parts) > 1 else []
    variants = [frozenset[Place](), *parts]
    rows = [(person, carried) for carried in variants for person in targets]
    who = [person for person, _ in rows]
    edits = planting(organism, bench, decoys, who, [carried for _, carried in rows])
    made = continue_rows(bench.loaded, bench.cells(who), bench.noise(len(rows)), 0, edits)
    off, *each = np.split(made.final, len(variants))
    empty = np.zeros((0, *off.shape), off.dtype)
    return Grown(organism, bench, targets, base, decoys, off, np.stack(each) if each else empty)
