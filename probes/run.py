"""A probe run, top to bottom: the grid, the plan, the models, and every batch under hooks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hooks.recorder import record
from hooks.store import Run
from probes import grid, models, plan, provenance
from probes.existing import open_existing, refuse_other_models
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
        seen = loaded.control.found if loaded.control is not None else {}
        about = provenance.attributes(study, loaded.pipe, loaded.faces.values(), files, seen)
        existing = Run.create(out, found, labels, about)
    else:  # what was not on this machine before, or is another revision on the hub
        refuse_other_models(existing, study)
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
