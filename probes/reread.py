"""`python -m probes.reread runs=[a.zarr]`: recorded latents, without the adapter or with another face.

Three readings of a finished run, each a group of its own beside the record, `reread/<reading>`:

    carried    the adapter off for one evaluation of the denoiser at each stored x_t
    swapped    there, another person's face: the next one of the run
    committed  the adapter off from step k to the end, for each of `off_from`

The record is never written to. Models are those of the run's configuration, and are checked to be the
same: by their files, and by one sample of which every recorded x0 has to come out again. Interrupted,
the same command continues.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

import numpy as np

from hooks.errors import RunError, StepscopeError, nearest
from probes import grid, models
from probes.command import command, entry
from probes.existing import refuse_other_models
from probes.faces import Face
from probes.progress import progress
from probes.replay import estimates, onward
from probes.rereading import Rereading, opened, steps_off

Reading = Literal["carried", "swapped", "committed"]
READINGS = get_args(Reading)
Say = Callable[[str], None]
ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}
"""Distance of a recorded x0 to the same evaluation now, over its own norm, up to which it is the same."""


@dataclass(frozen=True)
class Settings:
    """What to read again.

    readings: of `READINGS`. off_from: steps from which the adapter is off, for `committed`; None is
    every one early in the run and every fourth later. prompts, faces: of which samples, all if none
    is named. batch_size: None for the run's own. device: as in `probes`, None for the run's own.
    places: where models lie now that have moved, by key of the run's configuration.
    """

    readings: tuple[str, ...] = READINGS
    off_from: tuple[int, ...] | None = None
    prompts: tuple[str, ...] = ()
    faces: tuple[str, ...] = ()
    batch_size: int | None = None
    device: str | None = None
    places: Mapping[str, str] | None = None
    dry: bool = False

    def __post_init__(self) -> None:
        for name in self.readings:
            if name not in READINGS:
                raise StepscopeError(f"readings: no {name!r}; {nearest(name, READINGS)}")
        size = self.batch_size
        if size is not None and not (isinstance(size, int) and size > 0):
            raise StepscopeError(f"batch_size={size!r} is not positive, or no whole number")
        if not isinstance(self.places or {}, Mapping):
            raise StepscopeError(f"places={self.places!r}: name places={{backbone.path:FOLDER}}")


def reread(path: str | Path, settings: Settings, say: Say = print) -> list[Path]:
    """Read a finished run again; returns the groups that were written.

    What is there is left as it is, what is missing of it is added. Raises StepscopeError for a run
    that is unfinished, was made without an adapter or by other models, and for what it lacks.
    """
    run = opened(path, settings.places)
    if run.study.adapter is None or run.study.adapter.scale == 0:
        raise StepscopeError(
            f"{path} was made without an adapter: there is nothing to be switched off"
        )
    cells = chosen(run, settings)
    off = steps_off(run, settings.off_from)
    wanted = {
        name: run.target(name, cells, off if name == "committed" else ())
        for name in settings.readings
    }
    left = {name: target.left() for name, target in wanted.items()}
    evaluations = {
        name: len(todo) * (sum(run.steps - k for k in off) if name == "committed" else run.steps)
        for name, todo in left.items()
    }
    told = ", ".join(f"{name} {len(todo)}" for name, todo in left.items())
    hours = sum(evaluations.values()) * run.seconds_an_evaluation() / 3600
    say(
        f"{path}: samples to read again: {told}; {sum(evaluations.values())} evaluations, about "
        f"{hours:.2f} hours where the run was made"
    )
    if settings.dry or not any(left.values()):
        return []
    refuse_other_models(run.store, run.study)
    loaded = load(run, settings)
    before = check(run, loaded)
    size = settings.batch_size or run.study.batch_size
    with progress(sum(evaluations.values())) as advance:
        for name, todo in left.items():
            target = wanted[name].ready(before)
            for start in range(0, len(todo), size):
                batch = todo[start : start + size]

                def on_step(where: str = f"{name}, sample {batch[0].index}", n: int = len(batch)):
                    for _ in range(n):
                        advance(where)

                target.write(batch, READ[name](run, loaded, batch, off, on_step))
    return [run.folder(name) for name in settings.readings]


def chosen(run: Rereading, settings: Settings) -> list[grid.Cell]:
    """The cells to read again. Raises StepscopeError for a prompt or a face that the run has not."""
    for word in ("prompt", "face"):
        known = list(dict.fromkeys(getattr(cell, word) for cell in run.cells))
        for one in getattr(settings, f"{word}s"):
            if one not in known:
                raise StepscopeError(f"{word}s: {run.path} has no {one!r}; {nearest(one, known)}")
    return [
        cell
        for cell in run.cells
        if (not settings.prompts or cell.prompt in settings.prompts)
        and (not settings.faces or cell.face in settings.faces)
    ]


def load(run: Rereading, settings: Settings) -> models.Models:
    """The run's models, with the faces as they were recorded."""
    study = replace(run.study, initial_latents=None)
    if settings.device is not None:
        study = replace(study, device=settings.device)
    loaded = models.load(study, {}, run.latent_shape, len(run.cells))
    embeddings = run.read("face_embedding", [cell.index for cell in run.cells])
    faces = {
        cell.face: Face(cell.face, embedding, None, {"source": "the run"}, 0.0)
        for cell, embedding in zip(run.cells, embeddings, strict=True)
    }
    return replace(loaded, faces=faces)


def check(run: Rereading, loaded: models.Models) -> dict[str, float]:
    """How far the first sample's x0 and final latents, made again, are from the recorded ones.

    Root mean square over that of the recorded, the worst step. Raises RunError where that is more
    than rounding.
    """
    first = run.cells[:1]
    recorded = [run.read(name, [0]) for name in ("x0", "final_latents")]
    made = estimates(loaded, first, run.read("latents", [0]))
    found = {}
    for name, old, new in zip(("x0", "final_latents"), recorded, made, strict=True):
        old, new = (v.reshape(-1, np.prod(run.latent_shape)) for v in (old, new))
        found[name] = float((np.linalg.norm(new - old, axis=1) / np.linalg.norm(old, axis=1)).max())
    most = ROUNDING[run.study.backbone.dtype]
    if not max(found.values()) <= most:
        raise RunError(
            f"{run.path}: its first sample does not come out again, {found} of the recorded norm where "
            f"{most} is rounding: another library version or device, or a model that is not the run's"
        )
    return found


def without(loaded: models.Models) -> models.Models:
    """The same models with the adapter off."""
    adapter = loaded.study.adapter
    assert adapter is not None
    return replace(loaded, study=replace(loaded.study, adapter=replace(adapter, scale=0.0)))


Read = Callable[
    [Rereading, models.Models, Sequence[grid.Cell], Sequence[int], Callable[[], None]],
    dict[str, np.ndarray],
]


def carried(run, loaded, batch, off, on_step) -> dict[str, np.ndarray]:
    """x0 at each stored x_t, the adapter off for that evaluation."""
    stored = run.read("latents", [cell.index for cell in batch])
    return {"carried_x0": estimates(without(loaded), batch, stored, on_step)[0]}


def swapped(run, loaded, batch, off, on_step) -> dict[str, np.ndarray]:
    """x0 at each stored x_t, the adapter given another person's face for that evaluation."""
    stored = run.read("latents", [cell.index for cell in batch])
    others = [replace(cell, face=run.others[cell.face]) for cell in batch]
    first = {cell.face: cell.index for cell in reversed(run.cells)}
    given = [first[cell.face] for cell in others]
    return {
        "swapped_x0": estimates(loaded, others, stored, on_step)[0],
        "swapped_face_embedding": run.read("face_embedding", given),
        "swapped_face_crop": run.read("face_crop", given),
    }


def committed(run, loaded, batch, off, on_step) -> dict[str, np.ndarray]:
    """Final latents with the adapter off from each step on; the last are the run's own."""
    rows = [cell.index for cell in batch]
    stored, last = run.read("latents", rows), run.read("final_latents", rows)
    ends = [onward(without(loaded), batch, stored[:, k], k, on_step) for k in off]
    return {"committed_latents": np.stack([*ends, last], 1)}


READ: dict[str, Read] = {"carried": carried, "swapped": swapped, "committed": committed}


def work(config: Mapping[str, Any]) -> None:
    """Do what the configuration `conf/reread.yaml` says."""
    values = dict(config)
    runs = values.pop("runs")
    if not runs:
        raise StepscopeError("runs is not set: name runs=[...]")
    for word in ("readings", "off_from", "prompts", "faces"):
        given = values[word]
        if given is not None:
            given = values[word] = tuple(given if isinstance(given, list) else [given])
            if word != "off_from" and not all(isinstance(one, str) for one in given):
                raise StepscopeError(
                    f"{word}={list(given)} is read as a number: quote it, \"{word}=['10_0']\""
                )
    for path in runs if isinstance(runs, list) else [runs]:
        reread(str(path), Settings(**values))


main = entry("reread", work)

if __name__ == "__main__":
    sys.exit(command(main))
