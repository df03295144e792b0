"""The causal studies of a paper: of which runs each is made, and of which of their samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepscope.analysis.commands import FACES, Planned
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes.backbones.distilled import distillation_of
from stepscope.probes.composing import composed
from stepscope.probes.faces import FaceError, face_files
from stepscope.probes.intervene import sites_of
from stepscope.probes.interventions.names import GROUP
from stepscope.probes.interventions.part import Intervention
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.replay import MEMORYLESS, not_memoryless
from stepscope.probes.study import prompts_of

METRIC = "edited_identity"
"""What a causal study is measured by that names no metrics."""


@dataclass(frozen=True)
class PlannedStudy:
    """One causal study of one run. path: where its edited samples lie. metrics: that measure them."""

    study: CausalStudy
    of: Planned
    metrics: tuple[str, ...] = (METRIC,)

    @property
    def path(self) -> Path:
        return self.of.path / GROUP / self.study.name

    @property
    def backbone(self) -> str:
        return self.of.study.backbone.name

    @property
    def left_out(self) -> str | None:
        """Why no run on this backbone is continued, as its configuration says; else None."""
        backbone = self.of.study.backbone
        distilled = distillation_of(backbone)
        scheduler = distilled.scheduler if distilled is not None else backbone.scheduler
        known = {None, *(kind.__name__ for kind in MEMORYLESS)}
        return None if scheduler in known else not_memoryless(str(scheduler))


def planned_studies(
    causal: Mapping[str, Any] | None, planned: Sequence[Planned], models: Mapping[str, Any]
) -> list[PlannedStudy]:
    """The studies of the configuration's `causal`, for the runs of the experiments that are planned.

    causal: by name: `edit`, a file of `conf/edit`, without it the one of that name; `of`, an experiment;
    `faces`, the first so many; `prompts`; `every` and `together`, of the baseline and of the swapped
    backbone, or one number of every backbone; `parts`, names of those that are made of each, all without;
    and `metrics`, without them METRIC and those of the models. A study is made once of each backbone: of
    the run of the most steps, or of `steps` (of the baseline's and the swapped's), and of those of the
    largest scale. Of parts with `learned: there` the other run is the baseline's. Raises StepscopeError for
    a prompt or steps that the experiment does not have, and for an unknown part.
    """
    found = []
    for name, values in (causal or {}).items():
        some = [one for one in planned if one.experiment.name == values["of"]]
        for one in longest(of_steps(name, some, values.get("steps"), models)):
            known = prompts_of(one.study)
            for prompt in values["prompts"]:
                if prompt not in known:
                    raise StepscopeError(
                        f"causal.{name}.prompts: {values['of']} has no {prompt!r}; {nearest(prompt, known)}"
                    )
            swapped = one.study.backbone.name == models["swapped"]
            config = composed([f"edit={values.get('edit', name)}"], "intervene")
            config["edit"]["name"] = name
            config |= {
                "every": of_backbone(values["every"], swapped),
                "together": of_backbone(values["together"], swapped),
                "photos": list(models["photos"]) if one.experiment.of == FACES else [],
                "regions": models["regions"],
                "prompts": list(values["prompts"]),
                "faces": names_of(one)[: values["faces"]],
            }
            config.pop("runs")
            if chosen := of_backbone(values.get("parts"), swapped):
                config["edit"]["parts"] = some_parts(name, config["edit"], chosen)
            if swapped and (baseline := baseline_of(found, name)) is not None:
                config["directions_of"] = str(baseline.of.path)
            metrics = values.get("metrics") or (METRIC, *models["edited"])
            found.append(PlannedStudy(CausalStudy.from_config(config), one, tuple(metrics)))
    return found


def of_steps(
    name: str, planned: Sequence[Planned], steps: Any, models: Mapping[str, Any]
) -> list[Planned]:
    """The runs of so many steps, of the baseline and of the swapped backbone; all, where none is named.

    Raises StepscopeError where a backbone has no run of its number.
    """
    if steps is None:
        return list(planned)
    found = []
    for swapped in (False, True):
        own = [one for one in planned if (one.study.backbone.name == models["swapped"]) is swapped]
        wanted = of_backbone(steps, swapped)
        some = [one for one in own if one.study.steps == wanted]
        if own and not some:
            known = ", ".join(str(n) for n in sorted({one.study.steps for one in own}))
            raise StepscopeError(
                f"causal.{name}.steps: no run of {wanted} steps; there are {known}"
            )
        found += some
    return found


def longest(planned: Sequence[Planned]) -> list[Planned]:
    """Of each backbone the run of the most steps, and of those the one of the largest adapter scale."""
    best: dict[str, Planned] = {}
    for one in planned:
        known = best.setdefault(one.study.backbone.name, one)
        if rank(one) > rank(known):
            best[one.study.backbone.name] = one
    return list(best.values())


def rank(one: Planned) -> tuple[int, float]:
    """Steps, then the adapter's scale."""
    adapter = one.study.adapter
    return one.study.steps, adapter.strength if adapter is not None else 0.0


def of_backbone(value: Any, swapped: bool) -> Any:
    """The second of a pair for the swapped backbone, else the first; what is no pair is of each."""
    pair = isinstance(value, Sequence) and not any(isinstance(one, str) for one in value)
    return value[swapped] if pair else value


def some_parts(name: str, edit: Mapping[str, Any], chosen: Sequence[str]) -> list[Any]:
    """The parts of a study with these names. Raises StepscopeError for one that it does not have."""
    known = {part["name"]: part for part in edit["parts"]}
    for part in chosen:
        if part not in known:
            raise StepscopeError(f"causal.{name}.parts: no {part!r}; {nearest(part, known)}")
    return [known[part] for part in chosen]


def baseline_of(found: Sequence[PlannedStudy], name: str) -> PlannedStudy | None:
    """The study of the baseline, if it learns directions; it is planned before the swapped backbone's."""
    return next((one for one in found if one.study.name == name and one.study.learns), None)


def names_of(one: Planned) -> list[str]:
    """The faces of a planned run as it calls them; a plan without portraits has only numbered ones."""
    try:
        return list(face_files(one.study.faces))
    except FaceError:
        return list(one.study.faces)


def describe_studies(
    studies: Sequence[PlannedStudy], timed: Mapping[str, Mapping[str, float]]
) -> str:
    """The studies as text: interventions of each, and minutes, or why it is left out.

    timed: the seconds of each backbone, as `cost.timings` knows them; `-` of one that nobody timed.
    """
    lines = []
    for one in studies:
        what = f"  {one.study.name:<18} {one.backbone:<30}"
        if one.left_out is not None:
            lines.append(f"{what} left out: {one.left_out}")
            continue
        try:
            steps, every = one.of.study.steps, made_of(one)
        except StepscopeError as error:
            lines.append(f"{what} not planned: {error}")
            continue
        faces = min(len(one.study.faces), len(one.of.study.faces))
        samples = faces * len(one.study.prompts) * len(one.of.study.seeds)
        seconds = timed.get(one.backbone)
        if seconds is None:
            lines.append(f"{what} {samples * len(every):>6} interventions {'-':>6} min")
            continue
        starts = {each.change: each.start for each in every}.values()
        took = samples * (
            sum(steps - start for start in starts) * one.of.study.branches * seconds["step"]
            + len(every) * seconds["frame"]
        )
        if one.study.learns:
            learned = 2 * len(range(0, steps, one.study.every)) * len(one.of.study.prompts)
            took += faces * learned * len(one.of.study.seeds) * seconds["step"]
        lines.append(
            f"{what} {samples * len(every):>6} interventions {(took + seconds['run']) / 60:6.1f} min"
        )
    return "\n".join(lines)


def made_of(one: PlannedStudy) -> list[Intervention]:
    """Every intervention on a sample. Raises StepscopeError where models are missing."""
    sites, study = sites_of(one.of.study), one.study
    return [
        each
        for part in study.parts
        for each in part.interventions(sites, one.of.study.steps, study.every, study.together)
    ]
