"""What a study with steered parts learns before its samples are made: of which samples, steps and sites."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stepscope.hooks.edits import Edit, Scale
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import EditError, RunError, StepscopeError
from stepscope.hooks.families import blocks_of
from stepscope.probes import models
from stepscope.probes.backbones import Outline
from stepscope.probes.interventions import activations, store
from stepscope.probes.interventions.activations import Learning
from stepscope.probes.interventions.directions import VARIED, read_directions, varied
from stepscope.probes.interventions.making import Advance
from stepscope.probes.interventions.names import GROUP
from stepscope.probes.interventions.part import block_of
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
    steered, every = patterns_of(study)
    if not steered:
        return None
    if study.directions_of is not None:
        of_another_run(plan)
    faces = {anchor.base.face for anchor in plan.anchors}
    faces |= {run.others[face] for face in faces} if "other" in needed_people(plan) else set()
    chosen = of_one_value(sites, sites.chosen(Edit(every, Scale(0.0))))
    shape = shape_of(skeletons(run.study).outline, chosen)
    return Learning(
        run,
        activations.folder(store.folder(plan)),
        tuple(cell for cell in run.cells if cell.face in faces),
        tuple(range(0, run.steps, study.every)),
        chosen,
        of_one_value(sites, sites.chosen(Edit(steered, Scale(0.0)))),
        Regions(shape.grid, study.regions),
        shape.channels,
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


class Shape(NamedTuple):
    """Of the values at a site: (token_y, token_x) of the image, and channels."""

    grid: tuple[int, int]
    channels: int


def shape_of(outline: Outline, chosen: Sequence[str]) -> Shape:
    """Of the residual streams of the sites' blocks. Raises StepscopeError where blocks differ in it."""
    known = {block.name for block in blocks_of(outline.denoiser)}
    blocks = {block_of(site) for site in chosen}
    shapes = {outline.shape(f"{block}.residual.image") for block in blocks & known}
    if len(shapes) != 1 or blocks - known:
        told = ", ".join(map(str, sorted({channels for _, channels in shapes})))
        raise StepscopeError(
            "edit=directions compares blocks of one width and as many tokens, as all of FLUX's are, and "
            f"these have {told} channels: name a U-Net's of one level, 'edit.learn=[mid.*.residual.image]' "
            "and edit.parts with such sites; edit=adapter_window, transplant, face_swap and branch take "
            "them all"
        )
    ((tokens, channels),) = shapes
    return Shape(level(outline.grid, tokens), channels)


def level(grid: tuple[int, int], tokens: int) -> tuple[int, int]:
    """The grid of a U-Net's level of so many tokens: each has half the rows and columns of the last."""
    y, x = grid
    while y * x > tokens:
        y, x = -(-y // 2), -(-x // 2)
    return y, x


def patterns_of(study: CausalStudy) -> tuple[list[str], list[str]]:
    """Of the sites that are steered, and of all that directions are learned at."""
    steered = [pattern for part in study.parts if part.do == "steer" for pattern in part.sites]
    return steered, [*study.learn, *steered]


def check_learnable(run: Rereading, study: CausalStudy, sites: Sites) -> None:
    """Raise StepscopeError for a study with steered parts at blocks that cannot be compared, or of a run
    from which no direction can be learned on other samples than those it is used on.
    """
    if not study.learns:
        return
    varied(run.path, {word: [getattr(cell, word) for cell in run.cells] for word in VARIED})
    outline = skeletons(run.study).outline
    try:
        chosen = sites.chosen(Edit(patterns_of(study)[1], Scale(0.0)))
    except EditError:  # of another family's blocks; of one's own a plan says the nearest
        chosen = [name for name in sites.names if name.endswith(".residual.image")]
    shape_of(outline, chosen)


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
