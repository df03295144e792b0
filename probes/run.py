"""A probe run, top to bottom: the grid, the plan, the models, and every batch under hooks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hooks.errors import RunError
from hooks.recorder import record
from hooks.store import Run
from probes import grid, models, plan, provenance
from probes.faces import Face, face_files
from probes.progress import progress
from probes.study import Study, prompts_of
from probes.words import warn_of_unknown

Say = Callable[[str], None]


def run(study: Study, say: Say = print) -> Path:
    """Record the study's grid into its run and return the run's path.

    A finished run is left as it is; an unfinished one is continued; `study.dry` stops after the
    plan. Raises StepscopeError for whatever the user can mend.
    """
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    out = Path(study.out) if study.out is not None else provenance.default_out(study)
    existing = open_existing(study, out, cells, files)
    done = existing.done if existing is not None else np.zeros(len(cells), bool)
    left = int((~done).sum())
    if not left:
        say(f"{out} is finished: all {len(cells)} samples are done, nothing to do")
        return out
    found = plan.outline(study)
    say(plan.describe(study, found, len(cells), left, out))
    plan.refuse_too_large(found, left, out)
    if study.dry:
        return out

    loaded = models.load(study, files, plan.latent_shape(found), len(cells))
    texts = [*dict.fromkeys(c.prompt for c in cells), study.negative_prompt or ""]
    warn_of_unknown(loaded.pipe, study.backbone.name, texts)
    if existing is None:
        labels = [
            {"face": c.face, "prompt": c.prompt, "seed": c.seed, "batch_size": len(batch)}
            for batch in grid.batches(cells, study.batch_size, done)
            for c in batch
        ]
        about = provenance.attributes(study, loaded.pipe, loaded.faces.values(), files)
        existing = Run.create(out, found, labels, about)
    else:  # what was not on this machine before, or is another revision on the hub
        refuse(out, "other weights", provenance.other_weights(existing.attributes, study))
    denoise(loaded, cells, existing)
    say(f"{out}: all {len(cells)} samples are done")
    return out


def denoise(loaded: models.Models, cells: Sequence[grid.Cell], out: Run) -> None:
    """Make every batch in which a sample is not done, under hooks."""
    study, done = loaded.study, out.done
    work = list(grid.batches(cells, study.batch_size, done))
    with (
        loaded.ready() as call,
        record(loaded.pipe, out, study.capture) as recording,
        progress(len(work) * study.steps) as advance,
    ):
        for batch in work:
            faces = [loaded.faces.get(cell.face) for cell in batch]
            recording.place(
                [None if done[cell.index] else cell.index for cell in batch],
                face_seconds=face_seconds(faces),
                extras=[extras(face) for face in faces],
            )
            where = f"sample {batch[0].index + 1} of {len(cells)}"
            loaded.sample(batch, call, on_step=lambda: advance(where))  # noqa: B023


def open_existing(
    study: Study, out: Path, cells: Sequence[grid.Cell], files: Mapping[str, Path]
) -> Run | None:
    """The run at `out`, if there is one.

    Raises RunError, with the difference, if it was made by another configuration, or if a file of
    prompts, a face or a weight file that the configuration names says something else by now.
    """
    if not out.exists():
        return None
    run = Run.open(out)
    old = run.attributes.get("configuration")
    if old is None:
        raise RunError(f"{out} was not made by `python -m probes`: choose another out=")
    changed = (
        provenance.differences(old, provenance.configuration(study))
        or other_samples(run, cells)
        or [
            f"the file of face {name} was changed"
            for name, then in run.attributes["faces"].items()
            if provenance.digest(files[name]) != then["file_sha256"]
        ]
    )
    refuse(out, "another configuration", changed)
    refuse(out, "other weights", provenance.other_weights(run.attributes, study))
    return run


def refuse(out: Path, what: str, changed: Sequence[str]) -> None:
    """Raise RunError if something has changed since the run was made."""
    if changed:
        raise RunError(
            f"{out} was made with {what}: {'; '.join(changed)}. Choose another out=, or remove it"
        )


def other_samples(run: Run, cells: Sequence[grid.Cell]) -> list[str]:
    """How the samples that a run has places for differ from the grid: the first that does."""
    then = list(zip(*(run.read(name) for name in ("face", "prompt", "seed")), strict=True))
    if len(then) != len(cells):
        return [f"samples: {len(then)} -> {len(cells)}"]
    for cell, (face, prompt, seed) in zip(cells, then, strict=True):
        old, new = (str(face), str(prompt), int(seed)), (cell.face, cell.prompt, cell.seed)
        if old != new:
            return [f"sample {cell.index}: {old} -> {new}"]
    return []


def extras(face: Face | None) -> dict[str, np.ndarray]:
    """What probes add to a sample: see `plan.EXTRAS`."""
    embedding, crop = (face.embedding, face.crop) if face is not None else (None, None)
    return {
        "face_embedding": np.full(512, np.nan, np.float32) if embedding is None else embedding,
        "face_crop": np.zeros((112, 112, 3), np.uint8) if crop is None else crop,
    }


def face_seconds(faces: Sequence[Face | None]) -> float:
    """Seconds that finding and embedding these faces took, each counted once; NaN without faces."""
    seconds = {face.name: face.seconds for face in faces if face is not None}
    return sum(seconds.values()) if seconds else float("nan")
