"""`stepscope paper`: run every experiment, measure, draw all figures and tables, and report."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("paper")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

import xarray as xr

from stepscope.analysis import report
from stepscope.analysis.causal.planned import (
    PlannedStudy,
    describe_studies,
    planned_studies,
)
from stepscope.analysis.causal.projections import projections
from stepscope.analysis.commands import (
    FACES,
    Planned,
    chosen_faces,
    chosen_pictures,
    experiments,
    idle_limits,
    left_out,
    plan,
    words_for,
)
from stepscope.analysis.cost import describe, label, timings
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.explore.excerpt import excerpt
from stepscope.analysis.items import KINDS, make_items, task_words
from stepscope.analysis.look_ahead import look_ahead
from stepscope.analysis.margins import Margins
from stepscope.analysis.measure import Settings, measure_all, preflight
from stepscope.analysis.needs import unmeasured
from stepscope.analysis.planted.result import Result, read_all
from stepscope.analysis.runs import open_measured
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.hooks.labels import stored_seed
from stepscope.hooks.paths import local_path
from stepscope.probes.command import command, entry
from stepscope.probes.composing import composed
from stepscope.probes.faces import face_files
from stepscope.probes.intervene import intervene
from stepscope.probes.reread import Settings as Rereadings
from stepscope.probes.reread import reread
from stepscope.probes.run import run
from stepscope.probes.study import prompts_of

Say = Callable[[str], None]


def paper(config: Mapping[str, Any], say: Say = print) -> Path | None:
    """Do what the configuration `conf/paper.yaml` says; returns the report's path, None without.

    What is finished is left as it is: runs, and measurements whose inputs are the same. Raises
    StepscopeError for mistakes that the user can fix.
    """
    models, out = config["models"], local_path(config["out"], "out")
    for word, known in KINDS.items():
        for name in config[word] or ():
            if name not in known:
                raise StepscopeError(f"{word}: no {name!r}; {nearest(name, known)}")
    margins = Margins.named(config["verdict"])
    dry = bool(config["dry"])
    faces, most = chosen_faces(config["faces"], models["faces"], dry=dry)
    pictures = chosen_pictures(config["faces"], models["pictures"])
    wanted = experiments(config["study"], config["experiments"], most, pictures)
    overrides, folder = models["overrides"], out / "runs"
    planned = plan(wanted, faces, overrides, folder, dry=dry, pictures=pictures)
    say(describe(planned, models))
    without = {} if config["experiments"] else left_out(config["study"], pictures)
    hidden = [name for name, of in without.items() if models["pictures"][of] is None]
    if told := {name: of for name, of in without.items() if name not in hidden}:
        given = [word for word in task_words() if word.split("=")[0] != "dry"]
        again = shlex.join([*config["command"].split(), *given])
        adds = f"{words_for(told.values())} adds {'it' if len(told) == 1 else 'them'}"
        say(f"note: without {' and '.join(told)}: {again} {adds}")
    for note in idle_limits(task_words(), planned):
        say(f"note: {note}")
    studies = planned_studies(config["causal"], planned, models)
    if studies:
        say(describe_studies(studies, timings(planned, models)))
    causal = [one for one in studies if one.left_out is None]
    networks = {word: value for word, value in config["networks"].items() if value is not None}
    settings = Settings(photos=tuple(models["photos"]), **networks)
    measured = wanted_metrics(planned, config) | {one.path: one.metrics for one in causal}
    left = (name for path, names in measured.items() for name in unmeasured(path, names))
    metrics = list(dict.fromkeys(left))
    if dry:
        look_ahead(planned, out, lambda: preflight(metrics, settings), say)
        return None
    preflight(metrics, settings)
    record_runs(planned, say)
    reread_runs(planned, say)
    for one in causal:
        intervene(one.of.path, one.study, say)
    measure_runs(measured, settings, say, shown(planned))
    known = read_all(local_path(config["planted"], "planted"))
    evidence = load_evidence(planned, models, margins, causal, known)
    items = make_items(config, evidence, planned, say, hidden)
    made = f"{sum(not item.missing for item in items)} of {len(items)} figures and tables"
    if not config["report"]:
        say(
            f"{out}: {made}, in {', '.join(str(out / kind) for kind in KINDS if config[kind] != [])}"
        )
        return None
    beside = excerpt(evidence.runs, out)
    path = report.write(
        out / "report.html",
        evidence,
        items,
        title=f"stepscope: {out.name}",
        explorer=beside and beside.path.name,
    )
    if beside:
        say(str(beside))
    say(f"{path}: {made}")
    say(f"next: open {path} in a browser")
    return path


def record_runs(planned: Sequence[Planned], say: Say) -> None:
    """Record every run that is not another's part; finished ones are skipped by `probes` itself."""
    own = {one.path: one for one in reversed(planned) if one.made_here}
    for i, one in enumerate(reversed(own.values())):
        say(f"run {i + 1} of {len(own)}: {label(one)}")
        run(one.study, say=lambda text: None)


def reread_runs(planned: Sequence[Planned], say: Say) -> None:
    """Read runs again with the adapter off or with another face, where an experiment asks for it."""
    for one in planned:
        if one.experiment.readings:
            settings = Rereadings(
                one.experiment.readings,
                prompts=one.reread_prompts,
                faces=tuple(face_files(one.study.faces)),
            )
            reread(one.path, settings, say)


def wanted_metrics(
    planned: Sequence[Planned], config: Mapping[str, Any]
) -> dict[Path, tuple[str, ...]]:
    """Names of the metrics of each run: along its steps where an experiment asks for it."""
    measured, wanted = config["measured"], dict[Path, dict[str, None]]()
    for one in planned:
        names = wanted.setdefault(one.path, {})
        if own := one.experiment.metrics:
            along, ends = [f"{name}_step" for name in own], ("latency", *own)
        else:
            along = measured["every_step"]
            ends = (*measured["at_the_end"], *config["models"]["metrics"])
            if one.path in shown([one]):
                ends = ("reference", *ends)
        names |= dict.fromkeys([*ends, *(along if one.experiment.every_step else ())])
        if one.experiment.readings:
            names |= dict.fromkeys(measured["read_again"])
            names |= dict.fromkeys(f"arcface_{reading}" for reading in one.experiment.readings)
    return {path: tuple(names) for path, names in sorted(wanted.items())}


def shown(planned: Sequence[Planned]) -> dict[Path, tuple[str, ...]]:
    """The portraits of each run whose adapter is given them as pictures, and which holds no faces."""
    of_people = (one for one in planned if one.experiment.of == FACES)
    return {one.path: tuple(one.study.faces) for one in of_people if one.study.reads == {"picture"}}


def measure_runs(
    measured: Mapping[Path, Sequence[str]],
    settings: Settings,
    say: Say,
    portraits: Mapping[Path, Sequence[str]],
) -> None:
    """Measure each run by its metrics; what is measured with the same inputs is left as it is.

    portraits: of whom the images should be, of runs that hold no faces.
    """
    for k, (path, names) in enumerate(measured.items()):
        say(f"measuring run {k + 1} of {len(measured)}: {path.name}")
        measure_all([path], names, replace(settings, references=portraits.get(path, ())))


def load_evidence(
    planned: Sequence[Planned],
    models: Mapping[str, Any],
    margins: Margins | None = None,
    causal: Sequence[PlannedStudy] = (),
    known: Sequence[Result] = (),
) -> Evidence:
    """Every experiment's measured runs, each cut to the experiment's own grid."""
    runs: dict[str, list[xr.Dataset]] = {}
    for one in planned:
        measured = open_measured(one.path).assign_attrs(path=str(one.path))
        runs.setdefault(one.experiment.name, []).append(restrict(measured, one))
    levels = composed(["experiment=prompt_complexity", *backbone(models)]).get("complexity", {})
    return Evidence(
        runs,
        baseline=models["baseline"],
        swapped=models["swapped"],
        levels=levels,
        margins=margins,
        causal={(one.study.name, one.backbone): study_made(one) for one in causal},
        planted=known,
        projections={one.backbone: projections(one.path) for one in causal if one.study.learns},
    )


def study_made(one: PlannedStudy) -> xr.Dataset:
    """A measured causal study that says which run it is of."""
    return open_measured(one.path).assign_attrs(of=str(one.of.path))


def backbone(models: Mapping[str, Any]) -> list[str]:
    """The override without which no configuration composes."""
    return [f"backbone={models['baseline']}"]


def restrict(measured: xr.Dataset, one: Planned) -> xr.Dataset:
    """The samples of a planned run among those of the run that holds them."""
    grid = {
        "face": list(face_files(one.study.faces)),
        "prompt": prompts_of(one.study),
        "seed": [stored_seed(seed) for seed in one.study.seeds],
    }
    keep = measured["sample"].notnull().values
    for word, values in grid.items():
        keep &= measured[word].isin(values).values
    return measured.isel(sample=keep)


main = entry("paper", paper)

if __name__ == "__main__":
    sys.exit(command(main))
