"""A probe run, top to bottom: the grid, the plan, the models, and every batch under hooks."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks.errors import RunError, RunExistsError
from stepscope.hooks.paths import run_path
from stepscope.hooks.recorder import record
from stepscope.hooks.store import Run
from stepscope.probes import grid, models, plan, provenance
from stepscope.probes.claims import Claims
from stepscope.probes.existing import open_existing, refuse_other_models
from stepscope.probes.faces import Face, face_files
from stepscope.probes.progress import progress
from stepscope.probes.study import Study, prompts_of
from stepscope.probes.words import warn_of_unknown

Say = Callable[[str], None]


def run(study: Study, say: Say = print) -> Path:
    """Record the study's grid into its run and return the run's path.

    A finished run is left as it is; an unfinished one is continued; `study.dry` stops after the
    plan. Raises StepscopeError for whatever the user can mend.
    """
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    out = run_path(study.out) if study.out is not None else provenance.default_out(study)
    existing = open_existing(study, out, cells, files)
    left = int((~existing.done).sum()) if existing is not None else len(cells)
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
        seen = loaded.control.found if loaded.control is not None else {}
        about = provenance.attributes(study, loaded.pipe, loaded.faces.values(), files, seen)
        try:
            existing = Run.create(out, found, labels(loaded, cells), about)
        except RunExistsError:  # another process has made it meanwhile
            existing = open_existing(study, out, cells, files)
    else:  # what was not on this machine before, or is another revision on the hub
        refuse_other_models(existing, study)
    if existing is None:
        raise RunError(f"{out} was removed while models were loaded")
    say(f"{out}: {denoise(loaded, cells, existing)}")
    return out


def denoise(loaded: models.Models, cells: Sequence[grid.Cell], out: Run) -> str:
    """Make every batch in which a sample is not done and which no other process makes, under hooks.

    Returns in words how far the run is then.
    """
    study, before, made = loaded.study, out.done, 0
    work = list(grid.batches(cells, study.batch_size, before))
    with (
        loaded.ready() as call,
        closing(Claims(out)) as claims,
        record(loaded.pipe, out, study.capture) as recording,
        progress(len(work) * study.steps) as advance,
    ):
        for batch in claims.each(work):
            faces = [loaded.faces.get(cell.face) for cell in batch]
            places = [None if out.is_done(cell.index) else cell.index for cell in batch]
            made += len(places) - places.count(None)
            recording.place(
                places,
                face_seconds=face_seconds(faces),
                extras=None if study.adapter is None else [extras(face) for face in faces],
            )
            where = f"sample {batch[0].index + 1} of {len(cells)}"
            loaded.sample(batch, call, on_step=lambda: advance(where))  # noqa: B023
    mine = f", {made} of them by this process" if made < (~before).sum() else ""
    others = list(grid.batches(cells, study.batch_size, done := out.done))
    if not others:
        claims.forget()
        return f"all {len(cells)} samples are done{mine}"
    return (
        f"{done.sum()} of {len(cells)} samples are done{mine}, and nothing is left to begin: the other "
        f"{(~done).sum()} are still made by {', '.join(claims.makers(others))}"
    )


def labels(loaded: models.Models, cells: Sequence[grid.Cell]) -> list[dict[str, Any]]:
    """What is known of each sample before it is made."""
    study = loaded.study
    scalars = {
        name: value
        for name, value in models.call_arguments(study, loaded.pipe, loaded.control).items()
        if value is None or isinstance(value, str | int | float)
    }
    same = {
        "negative_prompt": (study.negative_prompt or "") if study.branches == 2 else "",
        "steps_run": study.steps,
        "arguments": json.dumps(scalars, ensure_ascii=False),
        "adapters": "[]",
    }
    lengths = text_tokens(loaded, [cell.prompt for cell in cells])
    return [
        {
            "face": cell.face,
            "prompt": cell.prompt,
            "seed": cell.seed,
            "generator": f"seed {cell.seed % 2**64}"
            if loaded.latents is None
            else "initial_latents",
            "batch_size": len(batch),
            "call": batch[0].index,
            "text_tokens": lengths[cell.prompt],
            **same,
        }
        for batch in grid.batches(cells, study.batch_size, np.zeros(len(cells), bool))
        for cell in batch
    ]


def text_tokens(loaded: models.Models, prompts: Sequence[str]) -> dict[str, int]:
    """Tokens of each prompt without padding, as the pipeline's text encoder is given them."""
    texts = list(dict.fromkeys(prompts))
    longest = loaded.study.max_sequence_length
    made = loaded.pipe.tokenizer_2(texts, padding="max_length", max_length=longest, truncation=True)
    return {text: sum(mask) for text, mask in zip(texts, made["attention_mask"], strict=True)}


def extras(face: Face | None) -> dict[str, np.ndarray]:
    """What probes add to a sample: see `probes.face_variables`."""
    embedding, crop = (face.embedding, face.crop) if face is not None else (None, None)
    return {
        "face_embedding": np.full(512, np.nan, np.float32) if embedding is None else embedding,
        "face_crop": np.zeros((112, 112, 3), np.uint8) if crop is None else crop,
    }


def face_seconds(faces: Sequence[Face | None]) -> float:
    """Seconds that finding and embedding these faces took, each counted once; NaN without faces."""
    seconds = {face.name: face.seconds for face in faces if face is not None}
    return sum(seconds.values()) if seconds else float("nan")
