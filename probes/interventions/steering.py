"""Steering: rows that are continued with a learned direction added, at every image token alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from stepscope.hooks.edits import At, Edit, Operation, Scale
from stepscope.hooks.fingerprint import of_bytes
from stepscope.probes.interventions.batch import Batch, Job
from stepscope.probes.interventions.directions import Directions, turned
from stepscope.probes.interventions.part import Intervention
from stepscope.probes.interventions.pooled import Regions
from stepscope.probes.interventions.windows import stretches


@dataclass(frozen=True, eq=False)
class Steer(Operation):
    """Add to the values `amount` times a direction of given length: 1 is the whole learned difference.

    vectors: of each edited row. At a step the learned one is taken whose sigma is nearest.
    """

    directions: Directions
    regions: Regions
    vectors: Float[np.ndarray, "row step site region channel"]
    amount: float

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        rows = [at.chosen.index(row) for row in at.rows]
        step, site = self.directions.at(at.sigma), self.directions.place(at.site)
        found = torch.from_numpy(self.vectors[rows, step, site]).to(values.device)
        added = self.amount * self.regions.spread(found)[:, at.tokens]
        return (values + added).to(values.dtype)

    def told(self) -> dict[str, Any]:
        values = np.ascontiguousarray(self.vectors)
        return {"do": "Steer", "amount": self.amount, "vectors": of_bytes(values.tobytes())}


@dataclass(frozen=True)
class Steering:
    """What the steered rows of a study are given. here: directions of the run; there: of another run.

    others: the next person of each face.
    """

    here: Directions
    there: Directions | None
    regions: Regions
    others: Mapping[str, str]

    def edits(self, batch: Batch) -> Iterator[Edit]:
        """The edits of a batch's steered rows; first, the adapter off in those that start without it."""
        rows: dict[Intervention, list[int]] = {}
        for row, job in enumerate(batch.jobs, len(batch.giving)):
            if job.intervention.part.do == "steer":
                rows.setdefault(job.intervention, []).append(row)
        off = [row for one, some in rows.items() if one.without for row in some]
        if off:
            yield Edit(batch.adapter, Scale(0.0), rows=off)
        for one, some in rows.items():
            jobs = [batch.jobs[row - len(batch.giving)] for row in some]
            for first, end in stretches(one.steps):
                window = (first - batch.start, end - batch.start)
                yield Edit(one.sites, self.operation(one, jobs), steps=window, rows=some)

    def operation(self, one: Intervention, jobs: list[Job]) -> Steer:
        """What is done to the rows of these jobs."""
        of = self.there if one.part.learned == "there" else self.here
        assert of is not None
        vectors = np.stack([self.vectors(of, one, job) for job in jobs])
        return Steer(of, self.regions, vectors, float(one.part.to or 0))

    def vectors(self, of: Directions, one: Intervention, job: Job) -> np.ndarray:
        """The direction of a job (step, site, region, channel)."""
        part, base = one.part, job.base
        along, other = str(part.along), self.others.get(base.face)
        if along == "person" and part.donor == "other":
            found = of.learned(along, replace(base, face=str(other)))
        else:
            found = of.learned(along, base, other)
        if part.pooled:
            found = np.broadcast_to(found.mean(2, keepdims=True), found.shape)
        return turned(found, of.sites, base.index) if part.donor == "random" else found
