"""Choices of a study that change what is made, or change nothing, without a mistake: each in one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from stepscope.hooks.layout import Layout
from stepscope.probes import grid
from stepscope.probes.adapters import Adapter
from stepscope.probes.adapters.adapter import Part
from stepscope.probes.adapters.window import steps_inside
from stepscope.probes.plan import counted, skeletons
from stepscope.probes.study import Study


def notes(study: Study, found: Layout, cells: Sequence[grid.Cell]) -> list[str]:
    """What is worth knowing of a study before it is made, in a user's words."""
    path = study.family.folder(study.backbone, settings=True)
    return [
        *_without_adapter(study),
        *(
            line
            for key, one in study.adapters.items()
            for line in _of_adapter(study, key, one, path)
        ),
        *study.family.notes(study, path),
        *_of_backbone(study),
        *_of_grid(study, found, cells),
    ]


def _without_adapter(study: Study) -> Iterator[str]:
    if study.adapter is None:
        if study.faces:
            same = (
                ""
                if len(study.faces) == 1
                else ": the samples of a prompt and seed are the same image"
            )
            yield f"faces are named and adapter=none reads none{same}; adapter=infusenet reads them"
        if study.control_image is not None:
            yield "control_image is named and adapter=none reads none"


def _of_adapter(study: Study, key: str, adapter: Adapter, path: Path) -> Iterator[str]:
    for part in adapter.parts:
        what = "the adapter" if len(adapter.parts) == 1 else f"this part of {adapter.name}"
        yield from _of_part(study, adapter, part, f"{key}.{part.key}", what, path)
    yield from adapter.notes(lambda: skeletons(study).outline.denoiser)


def _of_part(
    study: Study, adapter: Adapter, part: Part, key: str, what: str, path: Path
) -> Iterator[str]:
    """key: that of its settings begin with it. what: it is called."""
    if part.scale == 0 or not adapter.is_on:
        yield f"{key}scale=0.0: {what} never runs"
    if isinstance(part.scale, float | int) and part.scale < 0:
        yield f"{key}scale={part.scale} is negative: it leads away from the {adapter.reads or 'style'}"
    inside = steps_inside(part.window, part.unit, _sigmas(study, part, path))
    if not inside:
        yield (
            f"{key}window={list(part.window)} in {part.unit} holds none of the "
            f"{counted(study.steps, 'step')}: {what} never runs"
        )
    elif len(inside) < study.steps:
        span = f"{inside[0]}" if len(inside) == 1 else f"{inside[0]} to {inside[-1]}"
        named = what if not part.key else f"{what}, {part.key.rstrip('_')},"
        yield f"{named} runs in {len(inside)} of {counted(study.steps, 'step')}: {span}, counted from 0"


def _sigmas(study: Study, part: Part, path: Path) -> list[float]:
    """Noise levels of the run's steps; their number alone where the window does not read them."""
    if part.unit != "sigma":
        return [0.0] * study.steps
    return study.family.planned_sigmas(study, path)


def _of_backbone(study: Study) -> Iterator[str]:
    if study.negative_prompt is not None and study.branches == 1:
        yield "negative_prompt is not read: only true_cfg above 1 runs a negative pass"
    if study.true_cfg_start and study.branches == 1:
        yield f"true_cfg_start={study.true_cfg_start} changes nothing: true_cfg={study.true_cfg} is off"


def _of_grid(study: Study, found: Layout, cells: Sequence[grid.Cell]) -> Iterator[str]:
    if "image" in found.variables:
        made = dict(zip(("height", "width"), found.variables["image"][1][:2], strict=True))
        for name, side in made.items():
            if side != getattr(study, name):
                yield f"{name}={getattr(study, name)} is rounded down to {side}: tokens are squares"
    if study.batch_size > len(cells):
        yield f"batch_size={study.batch_size}: there are {counted(len(cells), 'sample')}"
    for prompt in dict.fromkeys(cell.prompt for cell in cells):
        if prompt.startswith("#"):
            yield f"{prompt!r} is taken as a prompt: lines of a file have no comments"
