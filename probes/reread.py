"""`stepscope reread a.zarr`: recorded latents, read without the adapter or with another face.

Three readings of a finished run, each in its own group beside the record, `reread/<reading>`:

    carried    one evaluation of the denoiser at each stored x_t, with the adapter off
    swapped    the same, with another person's face: the next one of the run
    committed  the run continued from step k with the adapter off, for each k of `off_from`

The record is never changed. The models of the run's configuration are loaded and checked by their files'
hashes, and by reproducing every x0 of one sample. After an interruption the same command continues.
"""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("reread")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

import numpy as np

from stepscope.hooks.errors import RunError, StepscopeError, nearest
from stepscope.probes import grid, models
from stepscope.probes.command import command, entry
from stepscope.probes.existing import check_same_models
from stepscope.probes.faces import Face
from stepscope.probes.needed import needs
from stepscope.probes.preflight import model_lines
from stepscope.probes.progress import progress
from stepscope.probes.readings import READINGS
from stepscope.probes.recorded_files import same_files
from stepscope.probes.replay import continue_rows, evaluate_latents
from stepscope.probes.rereading import Rereading, open_rereading, steps_off
from stepscope.probes.study import Study
from stepscope.probes.usage import says
from stepscope.probes.values import checked

Say = Callable[[str], None]
ROUNDING = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 2e-2}
"""Largest relative distance between a recorded x0 and its reproduction that counts as rounding."""


@dataclass(frozen=True)
class Settings:
    """What to read again.

    readings: of `READINGS`; None for all that the run allows. off_from: steps k of `committed`; None is
    `default_steps_off`. prompts, faces: restrict the samples; empty for all. batch_size, device: None for
    the run's own. places: new paths of models that have moved, by key of the run's configuration. dry:
    print the plan only.

    Raises StepscopeError for an unknown reading and for a batch size below 1.
    """

    readings: tuple[str, ...] | None = None
    off_from: tuple[int, ...] | None = None
    prompts: tuple[str, ...] = ()
    faces: tuple[str, ...] = ()
    batch_size: int | None = None
    device: str | None = None
    places: Mapping[str, str] | None = None
    dry: bool = False

    def __post_init__(self) -> None:
        for name in self.readings or ():
            if name not in READINGS:
                raise StepscopeError(f"readings: no {name!r}; {nearest(name, READINGS)}")
        size = self.batch_size
        if size is not None and not (isinstance(size, int) and size > 0):
            raise StepscopeError(f"batch_size={size!r} is not positive, or no whole number")
        if not isinstance(self.places or {}, Mapping):
            raise StepscopeError(f"places={self.places!r}: name places={{backbone.path:FOLDER}}")


def reread(path: str | Path, settings: Settings, say: Say = print) -> list[Path]:
    """Read a finished run again; returns the folders of the readings, none where nothing was missing.

    Samples that were read before are skipped. Raises StepscopeError for a run that is unfinished, was made
    without an adapter, or was made by other models than the ones on this machine, and for a prompt, face
    or step that it does not have.
    """
    run = open_rereading(path, settings.places)
    if run.study.adapter is None or not run.study.adapter.is_on:
        raise StepscopeError(f"{path} was made without an adapter: there is nothing to switch off")
    cells = select_cells(run, settings)
    off = steps_off(run, settings.off_from)
    readings = settings.readings or allowed(run, say)
    wanted = {
        name: run.target(name, cells, off if name == "committed" else ()) for name in readings
    }
    remaining = {name: target.remaining() for name, target in wanted.items()}
    evaluations = {
        name: len(todo) * (sum(run.steps - k for k in off) if name == "committed" else run.steps)
        for name, todo in remaining.items()
    }
    counts = ", ".join(f"{name} {len(todo)}" for name, todo in remaining.items())
    hours = sum(evaluations.values()) * run.seconds_an_evaluation() / 3600
    say(
        f"{path}: samples to read again: {counts}; {sum(evaluations.values())} evaluations, about "
        f"{hours:.2f} hours on the machine of the run"
    )
    measured = "arcface" if "face" in run.study.reads else "decode"
    metrics = ",".join(f"{measured}_{name}" for name in readings)
    after = f"next: {says('measure')} {shlex.quote(str(path))} 'metrics=[{metrics}]'"
    if not any(remaining.values()):
        say(f"finished: all of it is read again, nothing to do\n{after}")
        return []
    if settings.dry:
        check_all_present([run.study], say)
        return []
    check_same_models(run.store, run.study)
    loaded = load(run, settings)
    deviation = check_reproduces(run, loaded)
    size = settings.batch_size or run.study.batch_size
    with progress(sum(evaluations.values())) as advance:
        for name, todo in remaining.items():
            target = wanted[name].prepare(deviation)
            for start in range(0, len(todo), size):
                batch = todo[start : start + size]

                def on_step(where: str = f"{name}, sample {batch[0].index}", n: int = len(batch)):
                    for _ in range(n):
                        advance(where)

                target.write(batch, READ[name](run, loaded, batch, off, on_step))
    say(f"{path}: read again\n{after}")
    return [run.folder(name) for name in readings]


def allowed(run: Rereading, say: Say) -> tuple[str, ...]:
    """The readings that a run can have. Says why one is left out."""
    if not run.not_swapped:
        return READINGS
    say(f"note: without swapped: {run.path} {run.not_swapped}")
    return tuple(name for name in READINGS if name != "swapped")


def check_all_present(studies: Sequence[Study], say: Say) -> None:
    """Say which models are needed, each once. Raises StepscopeError where one is not here."""
    every = [need for study in studies for need in needs(replace(study, faces=("face.npy",)))]
    wanted = list(
        {(need.role, need.place): need for need in every}.values()
    )  # embeddings are the run's
    say("\n".join(model_lines(wanted)))
    lost = [f"no {need.role} {need.place}" for need in wanted if need.cure]
    if lost:
        raise StepscopeError(f"not ready: {'; '.join(lost)}")
    say("ready: the same command without --dry does it")


def select_cells(run: Rereading, settings: Settings) -> list[grid.Cell]:
    """The cells to read again. Raises StepscopeError for a prompt or face that the run does not have."""
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
    """The run's models, with what its adapters were given.

    That is in the run where it is a face's embedding, and else in the run's files of faces and pictures.
    Raises RunError for one of them that is gone or changed.
    """
    study = replace(run.study, initial_latents=None)
    if settings.device is not None:
        study = replace(study, device=settings.device)
    if not all(one.from_embedding for one in study.adapters.values()):
        return models.load(study, same_files(run, study), run.latent_shape, len(run.cells))
    loaded = models.load(study, {}, run.latent_shape, len(run.cells))
    if not study.reads:
        return loaded
    embeddings = run.face("face_embedding", [cell.index for cell in run.cells])
    faces = {
        cell.face: Face(cell.face, embedding, None, {"source": "the run"}, 0.0)
        for cell, embedding in zip(run.cells, embeddings, strict=True)
    }
    return replace(loaded, faces=faces)


def check_reproduces(run: Rereading, loaded: models.Models) -> dict[str, float]:
    """Relative deviation of one sample's reproduced x0 and final latents, by variable.

    The norm of the difference over the norm of the recorded values, at the worst step, of the first sample
    of finite numbers. Raises RunError where it is more than rounding, and for a run without such a sample.
    """
    names = "x0", "final_latents"
    for cell in run.cells:
        recorded = [run.read(name, [cell.index]) for name in names]
        if all(np.isfinite(values).all() for values in recorded):
            break
    else:
        raise RunError(
            f"{run.path}: no sample of it is finite, so that its models cannot be checked"
        )
    reproduced = evaluate_latents(loaded, [cell], run.read("latents", [cell.index]))
    deviation = {}
    for name, old, new in zip(names, recorded, reproduced, strict=True):
        old, new = (v.reshape(-1, np.prod(run.latent_shape)) for v in (old, new))
        deviation[name] = float(
            (np.linalg.norm(new - old, axis=1) / np.linalg.norm(old, axis=1)).max()
        )
    most = ROUNDING[run.study.backbone.dtype]
    if not max(deviation.values()) <= most:
        raise RunError(
            f"{run.path}: its sample {cell.index} is not reproduced; relative deviation {deviation}, "
            f"at most {most} is rounding: another library version or device, or another model"
        )
    return deviation


Read = Callable[
    [Rereading, models.Models, Sequence[grid.Cell], Sequence[int], Callable[[], None]],
    dict[str, np.ndarray],
]


def carried(run, loaded, batch, off, on_step) -> dict[str, np.ndarray]:
    """x0 (sample, step, channel, y, x) at each stored x_t, with the adapter off."""
    stored = run.read("latents", [cell.index for cell in batch])
    return {"carried_x0": evaluate_latents(models.switched_off(loaded), batch, stored, on_step)[0]}


def swapped(run, loaded, batch, off, on_step) -> dict[str, np.ndarray]:
    """x0 (sample, step, channel, y, x) at each stored x_t with another person's face, and that face."""
    stored = run.read("latents", [cell.index for cell in batch])
    others = [replace(cell, face=run.others[cell.face]) for cell in batch]
    first = {cell.face: cell.index for cell in reversed(run.cells)}
    given = [first[cell.face] for cell in others]
    return {
        "swapped_x0": evaluate_latents(loaded, others, stored, on_step)[0],
        "swapped_face_embedding": run.face("face_embedding", given),
        "swapped_face_crop": run.face("face_crop", given),
    }


def committed(run, loaded, batch, off, on_step) -> dict[str, np.ndarray]:
    """Final latents (sample, off_from, channel, y, x); the last ones are the run's own."""
    rows = [cell.index for cell in batch]
    stored, last = run.read("latents", rows), run.read("final_latents", rows)
    off_models = models.switched_off(loaded)
    ends = [continue_rows(off_models, batch, stored[:, k], k, on_step=on_step).final for k in off]
    return {"committed_latents": np.stack([*ends, last], 1)}


READ: dict[str, Read] = {"carried": carried, "swapped": swapped, "committed": committed}


def run_reread(config: Mapping[str, Any]) -> None:
    """Read runs again as `conf/reread.yaml` says. Raises StepscopeError where no run is named."""
    values = dict(config)
    runs = values.pop("runs")
    if not runs:
        raise StepscopeError(f"no run is named: {says('reread')} runs/a.zarr")
    for word in ("readings", "off_from", "prompts", "faces"):
        given = values[word]
        if given is not None:
            given = values[word] = tuple(given if isinstance(given, list) else [given])
            if word != "off_from" and not all(isinstance(one, str) for one in given):
                raise StepscopeError(
                    f"{word}={list(given)} is read as a number: quote it, \"{word}=['10_0']\""
                )
    for path in runs if isinstance(runs, list) else [runs]:
        reread(str(path), checked(Settings, values))


main = entry("reread", run_reread)

if __name__ == "__main__":
    sys.exit(command(main))
