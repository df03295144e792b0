"""What a study with steered parts learns before its samples are made: of which samples, steps and sites."""

from collections.abc import Sequence
from pathlib import Path

from stepscope.hooks.edits import Edit, Scale
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import RunError, StepscopeError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.sites import select
from stepscope.probes import models
from stepscope.probes.backbones import Outline
from stepscope.probes.interventions import activations, store
from stepscope.probes.interventions.activations import Learning
from stepscope.probes.interventions.directions import read_directions
from stepscope.probes.interventions.making import Advance
from stepscope.probes.interventions.names import GROUP
from stepscope.probes.interventions.planned import Planned
from stepscope.probes.interventions.pooled import Regions
from stepscope.probes.interventions.steering import Steering
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.plan import skeletons
from stepscope.probes.rereading import Rereading
from stepscope.probes.usage import says


def learning(plan: Planned, sites: Sites) -> Learning | None:
    """What is evaluated for a study; None for one without steered parts.

    All prompts and seeds of the study's people and of the people that they are steered to. Raises EditError
    for a pattern that matches no site, StepscopeError for regions that do not fit, RunError where the other
    run that is named has no directions.
    """
    study, run = plan.study, plan.run
    steered = [pattern for part in study.parts if part.do == "steer" for pattern in part.sites]
    if not steered:
        return None
    if study.directions_of is not None:
        of_another_run(plan)
    faces = {anchor.base.face for anchor in plan.anchors}
    faces |= {run.others[face] for face in faces} if "other" in needed_people(plan) else set()
    outline = skeletons(run.study).outline
    return Learning(
        run,
        activations.folder(store.folder(plan)),
        tuple(cell for cell in run.cells if cell.face in faces),
        tuple(range(0, run.steps, study.every)),
        of_one_value(sites, sites.chosen(Edit((*study.learn, *steered), Scale(0.0)))),
        of_one_value(sites, sites.chosen(Edit(steered, Scale(0.0)))),
        Regions(outline.grid, study.regions),
        width_of(outline),
        study.rows,
        plan.adapter,
    )


def of_one_value(sites: Sites, chosen: Sequence[str]) -> tuple[str, ...]:
    """The sites. Raises StepscopeError where one is all of a block's layers that hold a LoRA."""
    layers = [] if sites.layers is None else [one.name for one in sites.layers.injections]
    if several := next((site for site in chosen if site in layers), None):
        raise StepscopeError(
            f"{several} is what a LoRA adds in several layers, and a direction is of one value: name "
            "residual streams, sites=['*.residual.image']"
        )
    return tuple(chosen)


def width_of(outline: Outline) -> int:
    """Channels of the residual stream. Raises StepscopeError where blocks differ in them."""
    names = select(["*.residual.image"], blocks_of(outline.denoiser))
    widths = {outline.shape(name)[1] for name in names}
    if len(widths) > 1:
        told = ", ".join(map(str, sorted(widths)))
        raise StepscopeError(
            "edit=directions compares blocks of one width, as FLUX's are, and these have "
            f"{told} channels; edit=adapter_window, transplant, face_swap and branch take them"
        )
    return widths.pop()


def check_learnable(run: Rereading, study: CausalStudy) -> None:
    """Raise StepscopeError for a study with steered parts on a backbone whose blocks differ in width."""
    if study.learns:
        width_of(skeletons(run.study).outline)


def needed_people(plan: Planned) -> set[str]:
    """`other`, where samples are steered to another person."""
    return {"other" for p in plan.study.parts if "other" in (p.along, p.donor)}


def learned(plan: Planned, asked: Learning, loaded: models.Models, advance: Advance) -> Steering:
    """Record what directions are learned from, where it is not there, and read the directions."""
    activations.record(asked, loaded, advance)
    there = None if plan.study.directions_of is None else read_directions(of_another_run(plan))
    others = plan.run.others if "other" in needed_people(plan) else {}
    return Steering(read_directions(asked.path), there, asked.regions, others)


def of_another_run(plan: Planned) -> Path:
    """The activations of a study of this name on the run that is named. Raises RunError without such."""
    path = Path(str(plan.study.directions_of))
    found = activations.folder(path / GROUP / plan.study.name)
    if not found.exists():
        raise RunError(
            f"directions_of={path} has no directions of a study {plan.study.name!r}: "
            f"{says('intervene')} {path} edit={plan.study.name} learns them"
        )
    return found
