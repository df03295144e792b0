"""Choices of a study that change what is made, or change nothing, without a mistake: each in one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusers import FluxTransformer2DModel

from stepscope.hooks.layout import Layout
from stepscope.probes import grid
from stepscope.probes.backbones import planned_sigmas
from stepscope.probes.infusenet import steps_inside
from stepscope.probes.plan import counted
from stepscope.probes.study import Adapter, Study
from stepscope.probes.weights import folder

FEW_STEPS = 8  # a distilled model is made for 1 to 4


def notes(study: Study, found: Layout, cells: Sequence[grid.Cell]) -> list[str]:
    """What is worth knowing of a study before it is made, in a user's words."""
    path = folder(study.backbone.path, f"backbone {study.backbone.name}", ["*.json", "**/*.json"])
    transformer: Any = FluxTransformer2DModel.load_config(path / "transformer")
    return [
        *_of_adapter(study, path),
        *_of_backbone(study, guided=bool(transformer["guidance_embeds"])),
        *_of_grid(study, found, cells),
    ]


def _of_adapter(study: Study, path: Path) -> Iterator[str]:
    adapter = study.adapter
    if adapter is None:
        if study.faces:
            same = (
                ""
                if len(study.faces) == 1
                else ": the samples of a prompt and seed are the same image"
            )
            yield f"faces are named and adapter=none reads none{same}; adapter=infusenet reads them"
        if study.control_image is not None:
            yield "control_image is named and adapter=none reads none"
        return
    if adapter.scale == 0:
        yield "adapter.scale=0.0: the adapter never runs"
    if adapter.scale < 0:
        yield f"adapter.scale={adapter.scale} is negative: it leads away from the face"
    inside = steps_inside(adapter, _sigmas(study, adapter, path))
    if not inside:
        yield (
            f"adapter.window={list(adapter.window)} in {adapter.window_unit} holds none of the "
            f"{counted(study.steps, 'step')}: the adapter never runs"
        )
    elif len(inside) < study.steps:
        span = f"{inside[0]}" if len(inside) == 1 else f"{inside[0]} to {inside[-1]}"
        yield f"the adapter runs in {len(inside)} of {counted(study.steps, 'step')}: {span}, counted from 0"


def _sigmas(study: Study, adapter: Adapter, path: Path) -> list[float]:
    """Noise levels of the run's steps; their number alone where the window does not read them."""
    if adapter.window_unit != "sigma":
        return [0.0] * study.steps
    return planned_sigmas(study, path)


def _of_backbone(study: Study, *, guided: bool) -> Iterator[str]:
    if not guided and study.guidance is not None:
        yield f"guidance={study.guidance} is not read: {study.backbone.name} has no guidance embedding"
    if not guided and study.steps > FEW_STEPS:
        yield f"steps={study.steps}: {study.backbone.name} is distilled for 1 to 4 steps"
    if study.negative_prompt is not None and study.branches == 1:
        yield "negative_prompt is not read: only true_cfg above 1 runs a negative pass"


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
