"""What a study's rows are made from, and the loop over its batches."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

import numpy as np

from stepscope.hooks.store import Run
from stepscope.probes import grid, models
from stepscope.probes.claims import Claims
from stepscope.probes.interventions import companions, store
from stepscope.probes.interventions.batch import Batch, Job, batches
from stepscope.probes.interventions.planned import Planned
from stepscope.probes.interventions.steering import Steering
from stepscope.probes.models import switched_off
from stepscope.probes.replay import continue_rows, noised

Advance = Callable[[str], None]
"""Counts an evaluation for one sample, and says what it is for."""
KEPT = 64  # variables of recorded samples in memory


@dataclass(frozen=True)
class Making:
    """What the batches of a study are made from.

    given: trajectories by sample and kind of donor. others: models by the name of another backbone.
    steering: what steered rows are given; None for a study without such.
    """

    plan: Planned
    loaded: models.Models
    given: Mapping[tuple[grid.Cell, str], companions.Trajectory]
    others: Mapping[str, models.Models] = field(default_factory=dict)
    steering: Steering | None = None

    def latents(self, cell: grid.Cell, donor: str, step: int) -> np.ndarray:
        """x_t (channel, y, x) before a step of the sample, or of the donor of a kind for the sample."""
        if (cell, donor) in self.given:
            return self.given[cell, donor].latents[step]
        return self._read("latents", self.recorded(cell, donor))[step]

    def start(self, job: Job) -> np.ndarray:
        """x_t (channel, y, x) that a job is continued from."""
        one, run = job.intervention, self.plan.run
        if one.part.do != "noise":
            return self.latents(job.base, "off" if one.without else "", one.start)
        x0 = self._read("x0", job.base)[one.start]
        other = replace(job.base, seed=int(one.part.to or 0))
        (noise,) = grid.noise([other], run.latent_shape, None).numpy()
        return noised(self.loaded.pipe.scheduler, x0, noise, float(run.sigma[one.start]))

    def recorded(self, cell: grid.Cell, donor: str) -> grid.Cell:
        """The recorded sample that is the donor of a kind for the sample; itself without a donor."""
        if donor != "other":
            return cell
        return self._cells[self._others[cell.face], cell.prompt, cell.seed]

    def giving(self, cell: grid.Cell, donor: str) -> grid.Cell:
        """The row that gives values to the edited rows of a sample: with the donor's face."""
        if donor == "same":
            return replace(cell, face=companions.SAME + cell.face)
        return self.recorded(cell, donor)

    def x0(self, cell: grid.Cell, donor: str, step: int) -> np.ndarray:
        """Recorded x0 (channel, y, x) of a step of a sample, or of its recorded donor."""
        return self._read("x0", self.recorded(cell, donor))[step]

    def final(self, cell: grid.Cell, donor: str) -> np.ndarray:
        """Final latents (channel, y, x) of a sample, or of its donor of a kind."""
        if (cell, donor) in self.given:
            return self.given[cell, donor].final
        return self._read("final_latents", self.recorded(cell, donor))

    @cached_property
    def _others(self) -> Mapping[str, str]:
        return self.plan.run.others

    @cached_property
    def _cells(self) -> Mapping[tuple[str, str, int], grid.Cell]:
        return {(cell.face, cell.prompt, cell.seed): cell for cell in self.plan.run.cells}

    def _read(self, name: str, cell: grid.Cell) -> np.ndarray:
        """A variable of a recorded sample."""
        return self._stored(name, cell.index)

    @cached_property
    def _stored(self) -> Callable[[str, int], np.ndarray]:
        """Reads a variable of a sample once for the many jobs that continue it."""
        return lru_cache(KEPT)(lambda name, index: self.plan.run.read(name, [index])[0])


def given(
    plan: Planned, loaded: models.Models
) -> dict[tuple[grid.Cell, str], companions.Trajectory]:
    """The trajectories of donors that are not recorded."""
    found = {}
    for donor in ("same", "off"):
        cells = [cell for cell, kind in plan.companions() if kind == donor]
        for start in range(0, len(cells), plan.study.rows):
            some = cells[start : start + plan.study.rows]
            noise = np.stack([plan.run.read("latents", [cell.index])[0, 0] for cell in some])
            rows = some
            if donor == "same":
                for cell in some:
                    companions.needed_face(loaded.faces, cell.face, plan.study.photos)
                rows = [replace(cell, face=companions.SAME + cell.face) for cell in some]
            with_it = loaded if donor == "same" else switched_off(loaded)
            made = companions.trajectories(with_it, rows, noise, lambda: None)
            found |= {(cell, donor): one for cell, one in zip(some, made, strict=True)}
    return found


def make(making: Making, out: Run, advance: Advance) -> None:
    """Make every anchor, and every batch in which a sample is not done and which no other process makes."""
    plan, adapter = making.plan, making.loaded.study.adapter
    scale = 1.0 if adapter is None else adapter.strength
    for anchor in plan.anchors:
        if not out.is_done(anchor.cell.index):
            x0 = None if anchor.step is None else making.x0(anchor.base, anchor.donor, anchor.step)
            final = making.final(anchor.base, anchor.donor)
            out.write(anchor.cell.index, store.values(final, x0))
    work = {
        batch.jobs[0].index: batch
        for batch in batches(plan.jobs, plan.study.rows, scale, plan.adapter)
    }
    with closing(Claims(out)) as claims:
        places = [[one.cell for job in batch.jobs for one in job.all] for batch in work.values()]
        for cells in claims.each(places):
            batch = work[cells[0].index]
            make_batch(making, batch, out, partial(evaluated, advance, batch))


def evaluated(advance: Advance, batch: Batch) -> None:
    """A step of a batch has run."""
    for job in batch.jobs:
        advance(job.intervention.part.name)


def make_batch(making: Making, batch: Batch, out: Run, on_step: Callable[[], None]) -> None:
    """Continue the rows of a batch, and write its jobs."""
    if batch.switches:
        switched(making, batch, out, on_step)
        return
    rows = [making.giving(*row) for row in batch.giving] + [job.cell for job in batch.jobs]
    start = [making.latents(*row, batch.start) for row in batch.giving]
    start += [making.start(job) for job in batch.jobs]
    loaded, sigmas = making.loaded, None
    if batch.backbone is not None:
        loaded, sigmas = making.others[batch.backbone], making.plan.run.sigma.tolist()
    edits = batch.edits() + ([*making.steering.edits(batch)] if making.steering else [])
    once = making.steering is None  # a direction times zero changes no bit
    made = continue_rows(
        loaded, rows, np.stack(start), batch.start, edits, on_step, sigmas, once=once
    )
    for row, job in enumerate(batch.jobs, len(batch.giving)):
        write(out, job, made.final[row], made.x0[row])


def switched(making: Making, batch: Batch, out: Run, on_step: Callable[[], None]) -> None:
    """Continue rows whose face changes to and fro, one call for each stretch of steps, and write them."""
    latents, x0 = np.stack([making.start(job) for job in batch.jobs]), None
    for first, end, rows in batch.stretches(making.plan.run.steps):
        made = continue_rows(making.loaded, rows, latents, first, (), on_step, steps=end - first)
        latents, x0 = made.final, made.x0 if x0 is None else x0
    assert x0 is not None
    for row, job in enumerate(batch.jobs):
        write(out, job, latents[row], x0[row])


def write(out: Run, job: Job, final: np.ndarray, x0: np.ndarray) -> None:
    """Write a job and its twins. x0: of the first step, for those of them that keep it."""
    for one in job.all:
        out.write(one.index, store.values(final, x0 if one.intervention.part.clamped else None))
