"""Interventions that run together: rows that start at one step, with the rows that give them values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from stepscope.hooks.edits import Edit, Operation, Scale, Swap
from stepscope.probes.grid import Cell
from stepscope.probes.interventions.part import Intervention
from stepscope.probes.interventions.random_like import RandomLike
from stepscope.probes.interventions.windows import stretches

ADAPTER = ("*.adapter",)
"""Every site of the adapter's edge, of the one adapter of a pipeline."""


@dataclass(frozen=True)
class Job:
    """One edited sample. cell: its place in the interventions' run, and the prompt and seed of `base`,
    with the face that the adapter is given from the start on. base: the recorded sample. twins: jobs that
    are the same change under other names, and get the same values."""

    cell: Cell
    base: Cell
    intervention: Intervention
    twins: tuple["Job", ...] = ()

    @property
    def index(self) -> int:
        """The place in the interventions' run."""
        return self.cell.index

    @property
    def all(self) -> tuple["Job", ...]:
        """The job and its twins."""
        return (self, *self.twins)


@dataclass
class Batch:
    """Rows of one call, which start at the same step: those that give values first, then the jobs'.

    giving: of each such row, the sample that it belongs to and the kind of donor. scale: the adapter's in
    the run. backbone: the name of another one that the rows are continued by. switches: whether the face
    that a row is given changes along the way. adapter: the sites of the adapter that is studied.
    """

    start: int
    scale: float = 1.0
    backbone: str | None = None
    switches: bool = False
    adapter: tuple[str, ...] = ADAPTER
    giving: list[tuple[Cell, str]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.giving) + len(self.jobs)

    def lacks(self, job: Job) -> list[tuple[Cell, str]]:
        """Rows that give values, which a job needs and the batch does not have."""
        needed = [(job.base, donor) for donor in job.intervention.donors]
        return [row for row in needed if row not in self.giving]

    def add(self, job: Job) -> None:
        self.giving += self.lacks(job)
        self.jobs.append(job)

    def stretches(self, steps: int) -> Iterator[tuple[int, int, list[Cell]]]:
        """First step, end and rows, while the face of no row changes; of a batch without giving rows.

        A row has its own face outside the intervention's steps. steps: of the run.
        """
        rows = [
            [
                job.cell
                if step in job.intervention.steps
                else replace(job.cell, face=job.base.face)
                for job in self.jobs
            ]
            for step in range(self.start, steps)
        ]
        first = self.start
        for step in range(self.start + 1, steps + 1):
            if step == steps or rows[step - self.start] != rows[first - self.start]:
                yield first, step, rows[first - self.start]
                first = step

    def edits(self) -> list[Edit]:
        """What changes these rows, with steps counted from the start; one edit for all rows of one kind."""
        rows: dict[Intervention, list[int]] = {}
        for row, job in enumerate(self.jobs, len(self.giving)):
            rows.setdefault(job.intervention, []).append(row)
        return [
            Edit(
                one.sites or self.adapter,
                self._operation(one, places),
                steps=(first - self.start, end - self.start),
                rows=places,
            )
            for one, places in rows.items()
            if one.part.do != "steer" and (not one.part.continues or one.part.do == "scale")
            for first, end in stretches(one.steps)
        ]

    def _operation(self, one: Intervention, rows: Sequence[int]) -> Operation:
        if one.part.do == "zero":
            return Scale(0.0)
        if one.part.do == "scale":
            return Scale(float(one.part.to or 0) / self.scale)
        (donor,) = one.donors
        jobs = [self.jobs[row - len(self.giving)] for row in rows]
        source = tuple(self.giving.index((job.base, donor)) for job in jobs)
        if one.part.donor == "random":
            return RandomLike(source, tuple(job.base.index for job in jobs))
        return Swap(source)


def computed_once(jobs: Sequence[Job]) -> list[Job]:
    """The jobs without those that another one of them computes, which are its twins."""
    alike: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        start = replace(job.cell, index=0)
        alike.setdefault((job.base, start, job.intervention.change), []).append(job)
    return [replace(first, twins=tuple(rest)) for first, *rest in alike.values()]


def batches(
    jobs: Sequence[Job], size: int, scale: float = 1.0, adapter: tuple[str, ...] = ADAPTER
) -> Iterator[Batch]:
    """Batches of at most `size` rows, those of a sample together; the same ones for the same jobs.

    Jobs that are one change are one row. Edits within blocks are in batches of their own: rows that are
    alike do not go through a block as one where it is edited (hooks/alike.py). A batch holds a job and what
    gives it values, also where that is more than `size`. scale: the adapter's in the run. adapter: its
    sites.
    """

    def kind(job: Job) -> tuple[str, int, bool, bool]:
        one = job.intervention
        return one.backbone or "", one.start, one.switches, one.within

    ordered = sorted(computed_once(jobs), key=lambda job: (*kind(job), job.base.index, job.index))
    for (backbone, start, switches, _), some in groupby(ordered, key=kind):
        batch = Batch(start, scale, backbone or None, switches, adapter)
        for job in some:
            if batch.jobs and len(batch) + 1 + len(batch.lacks(job)) > size:
                yield batch
                batch = Batch(start, scale, backbone or None, switches, adapter)
            batch.add(job)
        yield batch
