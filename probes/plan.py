"""What a run will cost, from configurations alone: nothing is loaded, nothing is run."""

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families import blocks_of, family_of
from stepscope.hooks.injections import injections_of
from stepscope.hooks.injections.declared import declared_of
from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.layout import Layout, layout
from stepscope.hooks.sites import select
from stepscope.hooks.vocabulary import STREAMS
from stepscope.hooks.writer import WAITING
from stepscope.probes import grid
from stepscope.probes.backbones import Outline
from stepscope.probes.backbones.family import planned_branches
from stepscope.probes.face_variables import extras_of
from stepscope.probes.study import Study
from stepscope.probes.unfit import check_fit

SHOWN = 12  # faces, prompts or seeds that the plan names


class DiskError(StepscopeError):
    """The run does not fit on the disk."""


def outline(study: Study) -> Layout:
    """The layout of the study's run, from configurations alone: no weights are downloaded.

    Raises WeightsError if one is unavailable.
    """
    bare = skeletons(study)
    made, network = bare.outline, bare.network
    with bare.loaded():
        blocks, places = blocks_of(made.denoiser), injections_of(made.denoiser, network)
        sites = Sites.of(made.denoiser, network)
        if study.edits:
            sigmas = study.family.planned_sigmas(study, bare.folder)
            check_fit(study, sites, sigmas, made.shape, made.grid)
        added = {one.place.name: one.place for one in declared_of(made.denoiser) if one.editable}
        full = {
            site: made.shape(stream_of(added[site]) if site in added else site)
            for site in select(study.capture.sites, blocks, [*added])
        }
    own = set(made.streams) | ({"image_prompt"} if sites.image_prompt else set())
    own |= {family_of(network).context} if network is not None else set()
    found = layout(
        blocks,
        [] if network is None else blocks_of(network),
        study.capture,
        streams=tuple(stream for stream in STREAMS if stream in own),
        steps=study.steps,
        branches=planned_branches(study),
        latent=made.latent,
        image=made.image,
        grid=made.grid,
        full=full,
        precision=study.backbone.dtype,
        injections=places,
    )
    extras = extras_of(study.reads)
    return replace(found, variables=found.variables | extras) if extras else found


def stream_of(place: Injection) -> str:
    """The site whose values are as many as those of a declared place: the stream that it is added to."""
    return f"{place.block}.residual.{place.stream}"


@dataclass(frozen=True)
class Skeletons:
    """A study's models without weights. folder: the backbone's. network: an adapter's ControlNet."""

    study: Study
    folder: Path
    outline: Outline
    network: Any

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """While it lasts, the denoiser holds the adapters as a run's does."""
        with ExitStack() as stack:
            for adapter in self.study.adapters.values():
                stack.enter_context(adapter.on_skeleton(self.outline.denoiser))
            yield


def skeletons(study: Study) -> Skeletons:
    """The backbone and the adapters' networks from configurations alone.

    Raises WeightsError if one is unavailable.
    """
    folder = study.family.folder(study.backbone, settings=True)
    outline = study.family.outline(study, folder)
    facts = study.facts()
    networks = [adapter.skeleton(facts) for adapter in study.adapters.values()]
    return Skeletons(study, folder, outline, next((n for n in networks if n is not None), None))


def latent_shape(found: Layout) -> tuple[int, int, int]:
    """(channel, y, x) of a layout's latents."""
    channel, y, x = found.variables["final_latents"][1]
    return channel, y, x


def describe(study: Study, found: Layout, cells: Sequence[grid.Cell], left: int, out: Path) -> str:
    """The plan as text: the grid, steps, bytes of each variable, total and free disk."""
    sizes, samples = found.bytes_per_sample(), len(cells)
    edits = [f"edit: {json.dumps(wanted.edit().told())}" for wanted in study.edits]
    lines = [
        headline(study, found, cells, left),
        *grid_lines(cells, word_of(study.reads)),
        *edits,
        f"into {out}",
    ]
    for name, (declared, shape) in found.variables.items():
        if name in sizes:
            dims = " x ".join(f"{d} {n}" for d, n in zip(declared.dims[1:], shape, strict=True))
            lines.append(f"  {name:<26}{spoken_bytes(sizes[name] * samples):>10}   {dims}")
    needed = sum(sizes.values()) * left
    free = spoken_bytes(free_bytes(out))
    lines.append(f"  {'to write, uncompressed':<26}{spoken_bytes(needed):>10}   free: {free}")
    whole = sum(
        prod(shape[1:]) * np.dtype(declared.dtype).itemsize
        for name, (declared, shape) in found.variables.items()
        if name in study.capture.sites or "." in name
    )
    if whole:
        waiting = whole * min(study.batch_size, samples) * (WAITING + 1)
        lines.append(
            f"memory for whole tensors: {spoken_bytes(waiting)}, of {WAITING + 1} steps at most"
        )
    return "\n".join(lines)


def headline(study: Study, found: Layout, cells: Sequence[grid.Cell], left: int) -> str:
    """Models, the product of the grid, and how a sample is made, in one line."""
    adapter = " and ".join(one.name for one in study.adapters.values()) or "no adapter"
    faces, prompts, seeds = axes_of(cells)
    product = " x ".join(
        [
            *([counted(len(faces), word_of(study.reads))] if faces else []),
            counted(len(prompts), "prompt"),
            counted(len(seeds), "seed"),
        ]
    )
    y, x = latent_shape(found)[1:]
    height, width = found.variables["image"][1][:2] if "image" in found.variables else (y, x)
    passes = ", 2 passes a step" if study.branches > 1 else ""
    batches = f", batches of {study.batch_size}" if study.batch_size > 1 else ""
    return (
        f"{study.backbone.name}, {adapter}: {product} = {counted(len(cells), 'sample')} ({left} to make), "
        f"{counted(study.steps, 'step')}, {height} x {width}{passes}{batches}"
    )


def word_of(reads: Collection[str]) -> str:
    """What the files of `faces` are called: faces, unless adapters read them as pictures alone."""
    return "picture" if {*reads} == {"picture"} else "face"


def axes_of(cells: Sequence[grid.Cell]) -> tuple[list[str], list[str], list[int]]:
    """Faces, prompts and seeds of a grid, each once; no face where none is named."""
    faces = list(dict.fromkeys(cell.face for cell in cells if cell.face))
    prompts = list(dict.fromkeys(cell.prompt for cell in cells))
    return faces, prompts, list(dict.fromkeys(cell.seed for cell in cells))


def grid_lines(cells: Sequence[grid.Cell], word: str = "face") -> list[str]:
    """What is in the grid, so that a prompt with a comma is seen to be two. word: see `word_of`."""
    faces, prompts, seeds = axes_of(cells)
    lines = [f"  prompts  {_some([json.dumps(p, ensure_ascii=False) for p in prompts], ' | ')}"]
    lines += [f"  seeds    {_some(list(map(str, seeds)), ', ')}"]
    return [f"  {f'{word}s':<9}{_some(faces, ', ')}", *lines] if faces else lines


def _some(words: Sequence[str], between: str) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return between.join(words[:SHOWN]) + more


def counted(count: int, noun: str) -> str:
    """`1 sample`, `2 samples`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def check_space(found: Layout, left: int, out: Path) -> None:
    """Raise DiskError if what is left to write may not fit (compression is not counted on)."""
    needed, free = sum(found.bytes_per_sample().values()) * left, free_bytes(out)
    if needed > free:
        norms = all(name not in found.variables for name in ("attention_token_norm", "velocity"))
        norms = norms and not any("." in name for name in found.variables)
        smaller = "or " if norms else "record=norms, or "
        raise DiskError(
            f"this run may need {spoken_bytes(needed)} and {out} has {spoken_bytes(free)} free: "
            f"fewer samples or steps, {smaller}another out="
        )


def free_bytes(out: Path) -> int:
    """Bytes that are free where a path lies, or will."""
    existing = next(p for p in (out, *out.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def spoken_bytes(count: float) -> str:
    """Bytes with a unit: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
