"""`stepscope intervene run.zarr edit=transplant`: continue recorded samples under edits.

Each sample of a finished run is continued from its stored x_t, with some sites zeroed or swapped, or with
another face. The final latents are kept beside the record, in `interventions/<name>`, with a place for
each. The models of the run's configuration are loaded and checked by their files' hashes, and by
reproducing every x0 of one sample. After an interruption the same command continues.
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("intervene")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

import numpy as np

from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.store import Run
from stepscope.probes import grid, models
from stepscope.probes.claims import Claims
from stepscope.probes.command import command, entry
from stepscope.probes.existing import check_same_models
from stepscope.probes.interventions import companions, store
from stepscope.probes.interventions.batch import Batch, Job, batches
from stepscope.probes.interventions.engine import continue_rows
from stepscope.probes.interventions.planned import Planned, planned
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.plan import counted, skeletons
from stepscope.probes.progress import progress
from stepscope.probes.reread import Settings as Rereadings
from stepscope.probes.reread import adapter_off, check_all_present, check_reproduces
from stepscope.probes.reread import load as load_models
from stepscope.probes.rereading import Rereading, open_rereading
from stepscope.probes.usage import says

Say = Callable[[str], None]


@dataclass(frozen=True)
class Making:
    """What the batches of a study are made from. given: trajectories by sample and kind of donor."""

    plan: Planned
    loaded: models.Models
    given: Mapping[tuple[grid.Cell, str], companions.Trajectory]

    def latents(self, cell: grid.Cell, donor: str, step: int) -> np.ndarray:
        """x_t (channel, y, x) before a step of the sample, or of the donor of a kind for the sample."""
        if (cell, donor) in self.given:
            return self.given[cell, donor].latents[step]
        run = self.plan.run
        return run.read("latents", [self.recorded(cell, donor).index])[0, step]

    def recorded(self, cell: grid.Cell, donor: str) -> grid.Cell:
        """The recorded sample that is the donor of a kind for the sample; itself without a donor."""
        if donor != "other":
            return cell
        run = self.plan.run
        key = run.others[cell.face], cell.prompt, cell.seed
        return next(one for one in run.cells if (one.face, one.prompt, one.seed) == key)

    def giving(self, cell: grid.Cell, donor: str) -> grid.Cell:
        """The row that gives values to the edited rows of a sample: with the donor's face."""
        if donor == "same":
            return replace(cell, face=companions.SAME + cell.face)
        return self.recorded(cell, donor)


def intervene(path: str | Path, study: CausalStudy, say: Say = print) -> Path:
    """Make a causal study on a finished run; returns the folder of the interventions.

    Samples that were made before are skipped. Raises StepscopeError for a run that is unfinished, was made
    without an adapter, or by other models than the ones on this machine; EditError for sites that the
    models do not have.
    """
    run = open_rereading(path, study.places)
    if run.study.adapter is None or run.study.adapter.scale == 0:
        raise StepscopeError(f"{path} was made without an adapter: no face is given to the model")
    plan = planned(run, study, sites_of(run))
    out = store.folder(plan)
    existing = store.open_or_create(plan) if out.exists() else None
    done = (
        existing.done
        if existing is not None
        else np.zeros(len(plan.anchors) + len(plan.jobs), bool)
    )
    left = [job for job in plan.jobs if not done[job.index]]
    hours = plan.evaluations(left) * run.seconds_an_evaluation() / 3600
    say(
        f"{out}: {counted(len(plan.jobs), 'intervention')}, {len(left)} to make; {plan.evaluations(left)} "
        f"evaluations, about {hours:.2f} hours on the machine of the run"
    )
    after = f"next: {says('measure')} {shlex.quote(str(out))} 'metrics=[edited_identity]'"
    if done.all():
        say(f"finished: nothing to do\n{after}")
        return out
    if study.dry:
        check_all_present(run.study, say)
        return out
    check_same_models(run.store, run.study)
    loaded = companions.with_other_photos(
        load_models(run, Rereadings(device=study.device)), study.photos
    )
    check_reproduces(run, loaded)
    made = store.open_or_create(plan)
    with progress(plan.evaluations(left)) as advance:
        make(Making(plan, loaded, given(plan, loaded)), made, advance)
    say(f"{out}: {int(made.done.sum())} of {made.size} samples are made\n{after}")
    return out


def sites_of(run: Rereading) -> Sites:
    """The sites of the run's models, from their configurations alone: no weights are read."""
    _, transformer, network = skeletons(run.study)
    return Sites.of(transformer, network)


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
            with_it = loaded if donor == "same" else adapter_off(loaded)
            made = companions.trajectories(with_it, rows, noise, lambda: None)
            found |= {(cell, donor): one for cell, one in zip(some, made, strict=True)}
    return found


def make(making: Making, out: Run, advance: Callable[[str], None]) -> None:
    """Make every anchor, and every batch in which a sample is not done and which no other process makes."""
    plan = making.plan
    for anchor in plan.anchors:
        if not out.is_done(anchor.cell.index):
            out.write(
                anchor.cell.index, store.values(final_of(making, anchor.base, anchor.donor), None)
            )
    work = {batch.jobs[0].index: batch for batch in batches(plan.jobs, plan.study.rows)}
    with closing(Claims(out)) as claims:
        for cells in claims.each([[job.cell for job in batch.jobs] for batch in work.values()]):
            batch = work[cells[0].index]
            make_batch(
                making, batch, out, lambda n=len(batch.jobs): [advance("") for _ in range(n)]
            )  # type: ignore[misc]


def final_of(making: Making, cell: grid.Cell, donor: str) -> np.ndarray:
    """Final latents of a sample, or of its donor of a kind."""
    if (cell, donor) in making.given:
        return making.given[cell, donor].final
    row = making.recorded(cell, donor).index
    return making.plan.run.read("final_latents", [row])[0]


def make_batch(making: Making, batch: Batch, out: Run, on_step: Callable[[], Any]) -> None:
    """Continue the rows of a batch, and write its jobs."""
    rows = [making.giving(*row) for row in batch.giving]
    start = [making.latents(*row, batch.start) for row in batch.giving]
    rows += [replace(job.cell, prompt=job.base.prompt) for job in batch.jobs]
    start += [making.latents(job.base, "", batch.start) for job in batch.jobs]
    made = continue_rows(making.loaded, rows, np.stack(start), batch.start, batch.edits(), on_step)
    for row, job in enumerate(batch.jobs, len(batch.giving)):
        clamped = made.x0[row] if job.intervention.part.clamped else None
        out.write(job.index, store.values(made.final[row], clamped))


def run_intervene(config: Mapping[str, Any]) -> None:
    """Make a study on runs as `conf/intervene.yaml` says. Raises StepscopeError where no run is named."""
    values = dict(config)
    runs = values.pop("runs")
    if not runs:
        raise StepscopeError(f"no run is named: {says('intervene')} runs/a.zarr edit=transplant")
    study = CausalStudy.from_config(values)
    for path in runs if isinstance(runs, list) else [runs]:
        intervene(str(path), study)


main = entry("intervene", run_intervene)

if __name__ == "__main__":
    sys.exit(command(main))
