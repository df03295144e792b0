"""`stepscope intervene run.zarr edit=transplant`: continue recorded samples under edits.

Each sample of a finished run is continued from its stored x_t, with some sites zeroed or swapped, or with
another face. The final latents are kept beside the record, in `interventions/<name>`, with a place for
each. The models of the run's configuration are loaded and checked by their files' hashes, and by
reproducing every x0 of one sample. After an interruption the same command continues.
"""

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("intervene")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

import numpy as np

from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import StepscopeError
from stepscope.probes import models
from stepscope.probes.command import command, entry
from stepscope.probes.existing import check_same_models
from stepscope.probes.interventions import companions, store
from stepscope.probes.interventions.activations import Learning
from stepscope.probes.interventions.batch import Job, computed_once
from stepscope.probes.interventions.learned import check_learnable, learned, learning
from stepscope.probes.interventions.makeable import check_makeable, other_backbones
from stepscope.probes.interventions.making import Making, given, make
from stepscope.probes.interventions.planned import Planned, planned
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.plan import counted, skeletons
from stepscope.probes.progress import progress
from stepscope.probes.reread import Settings as Rereadings
from stepscope.probes.reread import check_all_present, check_reproduces
from stepscope.probes.reread import load as load_models
from stepscope.probes.rereading import open_rereading
from stepscope.probes.study import Study
from stepscope.probes.usage import says

Say = Callable[[str], None]


def intervene(path: str | Path, study: CausalStudy, say: Say = print) -> Path:
    """Make a causal study on a finished run; returns the folder of the interventions.

    Samples that were made before are skipped. Raises StepscopeError for a run that is unfinished, was made
    without an adapter, or by other models than the ones on this machine; EditError for sites that the
    models do not have.
    """
    run = open_rereading(path, study.places)
    if run.study.adapter is None or not run.study.adapter.is_on:
        raise StepscopeError(f"{path} was made without an adapter: no face is given to the model")
    judge = "edited_reference_dinov2" if run.study.adapter.reads == "picture" else "edited_identity"
    sites = sites_of(run.study)
    check_learnable(run, study, sites)
    plan = planned(run, study, sites)
    check_makeable(plan)
    asked = learning(plan, sites)
    out = store.folder(plan)
    done = store.open_or_create(plan).done if out.exists() else np.zeros(plan.size, bool)
    left = [job for job in plan.jobs if not done[job.index]]
    more = 0 if asked is None else asked.evaluations
    say(described(plan, left, asked))
    after = f"next: {says('measure')} {shlex.quote(str(out))} 'metrics=[{judge}]'"
    if done.all():
        say(f"finished: nothing to do\n{after}")
        return out
    if study.dry:
        check_all_present([run.study, *other_backbones(plan).values()], say)
        return out
    check_same_models(run.store, run.study)
    loaded = companions.with_other_photos(
        load_models(run, Rereadings(device=study.device)), study.photos
    )
    if any(part.do == "face" and part.donor == "random" for part in study.made):
        loaded = companions.with_random_faces(loaded, run.others)
    check_reproduces(run, loaded)
    made = store.open_or_create(plan)
    with progress(plan.evaluations(left) + more) as advance:
        steering = None if asked is None else learned(plan, asked, loaded, advance)
        making = Making(plan, loaded, given(plan, loaded), continuing(plan, loaded), steering)
        make(making, made, advance)
    say(f"{out}: {int(made.done.sum())} of {made.size} samples are made\n{after}")
    return out


def continuing(plan: Planned, loaded: models.Models) -> dict[str, models.Models]:
    """The models of every other backbone that continues the run, with the run's faces."""
    found = {}
    for name, study in other_backbones(plan).items():
        on_device = replace(study, device=loaded.study.device)
        made = models.load(on_device, {}, plan.run.latent_shape, len(plan.run.cells))
        found[name] = replace(made, faces=loaded.faces)
    return found


def described(plan: Planned, left: Sequence[Job], asked: Learning | None = None) -> str:
    """The plan in words: interventions by part, evaluations, hours, megabytes.

    asked: what directions are learned from.
    """
    more, large = (asked.evaluations, asked.megabytes) if asked is not None else (0, 0.0)
    evaluations, run = plan.evaluations(left) + more, plan.run
    there = len(plan.study.parts) - len(plan.study.made)
    parts = Counter(job.intervention.part.name for job in plan.jobs)
    twins = len(left) - len(computed_once(left))
    hours = evaluations * run.seconds_an_evaluation() / 3600
    megabytes = large + len(left) * 8 * np.prod(run.latent_shape) / 1e6
    return "\n".join(
        [
            f"{store.folder(plan)}: {counted(len(plan.jobs), 'intervention')}, {len(left)} to make",
            *(f"  {count:>6}  {name}" for name, count in parts.items()),
            *([f"{counted(there, 'part')} left out: no directions_of is named"] if there else []),
            *(
                [f"{twins} of them are others under another name, and computed once"]
                if twins
                else []
            ),
            *([f"{more} evaluations to learn directions from"] if more else []),
            f"{evaluations} evaluations, about {hours:.2f} hours on the machine of the run; up to "
            f"{megabytes:.0f} MB",
        ]
    )


def sites_of(study: Study) -> Sites:
    """The sites of a study's models, from their configurations alone: no weights are read.

    `<block>.adapter` is what the adapter that is studied adds, and nothing of those beside it.
    """
    bare = skeletons(study)
    beside = tuple(name for one in study.beside.values() for name in one.adds_as)
    with bare.loaded():
        return replace(Sites.of(bare.outline.denoiser, bare.network), beside=beside)


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
