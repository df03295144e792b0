"""A probe run, top to bottom: the grid, the plan, the models, and every batch under hooks."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks.adapters import active_adapters
from stepscope.hooks.edits import edit
from stepscope.hooks.errors import RunError, RunExistsError
from stepscope.hooks.paths import run_path
from stepscope.hooks.recorder import record
from stepscope.hooks.store import Run
from stepscope.probes import grid, models, plan, provenance
from stepscope.probes.claims import Claims
from stepscope.probes.existing import (
    GRID,
    Standing,
    check_same_models,
    growing,
    open_existing,
)
from stepscope.probes.faces import Face, face_files
from stepscope.probes.kept_faces import values_of
from stepscope.probes.needed import needs
from stepscope.probes.notes import notes
from stepscope.probes.plan import counted
from stepscope.probes.preflight import model_lines, preflight
from stepscope.probes.progress import progress
from stepscope.probes.rereading import add_to_readings
from stepscope.probes.study import Study, prompts_of
from stepscope.probes.unfit import check_rows
from stepscope.probes.usage import says
from stepscope.probes.words import warn_of_unknown

Say = Callable[[str], None]


def run(study: Study, say: Say = print) -> Path:
    """Record the study's grid into its run and return the run's path.

    A finished run is left as it is; an unfinished one is continued, and one of fewer samples is added to;
    `study.dry` stops after the plan. Raises StepscopeError for mistakes that the user can fix.
    """
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    check_rows(study.edits, len(cells), study.batch_size)
    out = run_path(study.out) if study.out is not None else growing(study, cells, files)
    standing = open_existing(study, out, cells, files)
    if standing is not None and not standing.left:
        say(finished(standing, cells))
        return out
    left = len(cells) if standing is None else standing.left
    if study.dry:
        say("\n".join(model_lines(needs(study))))
    found = plan.outline(study)
    say(plan.describe(study, found, cells, left, out))
    if standing is not None and standing.new:
        say(f"adds {counted(len(standing.new), 'sample')} to the {standing.run.size} of {out}")
    plan.check_space(found, left, out)  # before notes, which list the steps
    for note in notes(study, found, cells):
        say(f"note: {note}")
    if study.dry:
        preflight(study, found, files, len(cells), say)
        return out

    loaded = models.load(study, files, plan.latent_shape(found), len(cells))
    texts = [*dict.fromkeys(c.prompt for c in cells), study.negative_prompt or ""]
    warn_of_unknown(loaded.pipe, study.backbone.name, texts)
    if standing is None:
        try:
            run = Run.create(out, found, labels(loaded, cells), about(loaded, files))
            standing = Standing(run, tuple(cells))
        except RunExistsError:  # another process has made it meanwhile
            standing = open_existing(study, out, cells, files)
    else:  # what was not on this machine before, or is another revision on the hub
        check_same_models(standing.run, study)
    while standing is not None and not add_places(standing, loaded, files):
        standing = open_existing(study, out, cells, files)
    if standing is None:
        raise RunError(f"{out} was removed while models were loaded")
    say(f"{out}: {denoise(loaded, standing.cells, standing.run)}")
    if standing.run.done.all():
        say(next_words(out))
    return out


def finished(standing: Standing, cells: Sequence[grid.Cell]) -> str:
    """What is said of a run in which nothing is left to do."""
    size, path = standing.run.size, standing.run.path
    among = f" of the {size}" if size > len(cells) else ""
    return f"finished: {counted(len(cells), 'sample')}{among} in {path}, nothing to do\n{next_words(path)}"


def next_words(out: Path) -> str:
    """What to do with a run that is made."""
    path = shlex.quote(str(out))
    return f"next: {says('measure')} {path}, then {says('explore')} {path}"


def about(loaded: models.Models, files: Mapping[str, Path]) -> dict[str, Any]:
    """The run's attributes."""
    return provenance.attributes(
        loaded.study, loaded.pipe, loaded.faces.values(), files, loaded.found
    )


def add_places(standing: Standing, loaded: models.Models, files: Mapping[str, Path]) -> bool:
    """Give the run places for the study's samples that it has none for; False if it has grown meanwhile."""
    new, run = standing.new, standing.run
    if not new:
        return True
    then, now = run.attributes, about(loaded, files)
    merged = {
        k: now[k] | then.get(k, {}) for k in ("faces", "weights", "model_settings", "weight_stamps")
    }
    grown = {key: now["configuration"][key] for key in GRID}
    attributes = {**merged, "configuration": then["configuration"] | grown}
    more = labels(loaded, new)
    if not run.extend(more, attributes, size=run.size):
        return False
    add_to_readings(run.path, more)
    return True


def denoise(loaded: models.Models, cells: Sequence[grid.Cell], out: Run) -> str:
    """Make every batch in which a sample is not done and which no other process makes, under hooks.

    Returns in words how far the run is then.
    """
    study, made, before = loaded.study, 0, out.done
    calls, whole = out.read("call"), np.zeros(out.size, bool)

    def open_batches(done: np.ndarray) -> list[list[grid.Cell]]:
        return list(grid.recorded_batches(cells, study.batch_size, calls, done))

    work, places_of = open_batches(before), [cell.index for cell in cells]
    reads = study.reads
    with (
        loaded.ready() as call,
        closing(Claims(out)) as claims,
        edited(loaded),
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
                extras=[values_of(face, reads) for face in faces] if reads else None,
            )
            where = spoken(batch, out.size)
            loaded.sample(batch, call, on_step=lambda: advance(where))  # noqa: B023
    mine = f", {made} of them by this process" if made < (~before[places_of]).sum() else ""
    others = open_batches(done := out.done)
    if not others:
        claims.forget(open_batches(whole))
        whole_run = "the sample is" if len(cells) == 1 else f"all {len(cells)} samples are"
        return f"{whole_run} done{mine}"
    done = done[places_of]
    return (
        f"{done.sum()} of {len(cells)} samples are done{mine}, and nothing is left to begin: the other "
        f"{(~done).sum()} are still made by {', '.join(claims.makers(others))}"
    )


def spoken(batch: Sequence[grid.Cell], size: int) -> str:
    """The samples of a batch, counted from one: `samples 9-12 of 12`."""
    first, last = batch[0].index + 1, batch[-1].index + 1
    return f"sample {first} of {size}" if first == last else f"samples {first}-{last} of {size}"


@contextmanager
def edited(loaded: models.Models) -> Iterator[None]:
    """The study's edits, if it has any, after the adapter has withheld what a pass is not given."""
    with ExitStack() as stack:
        if loaded.study.edits:
            edits = [wanted.edit() for wanted in loaded.study.edits]
            stack.enter_context(edit(loaded.pipe, edits))
        yield


def labels(loaded: models.Models, cells: Sequence[grid.Cell]) -> list[dict[str, Any]]:
    """What is known of each sample before it is made."""
    study = loaded.study
    with loaded.ready() as call:
        adapters = active_adapters(loaded.pipe)
    scalars = {
        name: value
        for name, value in call.items()
        if value is None or isinstance(value, str | int | float)
    }
    same = {
        "negative_prompt": (study.negative_prompt or "") if study.branches == 2 else "",
        "steps_run": study.steps,
        "arguments": json.dumps(scalars, ensure_ascii=False),
        "adapters": adapters,
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
            **edits_of(study, row),
        }
        for batch in grid.split(cells, study.batch_size)
        for row, cell in enumerate(batch)
    ]


def edits_of(study: Study, row: int) -> dict[str, str]:
    """The coordinate `edits` of the sample in a row of its batch; none in a run without edits."""
    edits = [wanted.edit() for wanted in study.edits]
    told = [one.told() for one in edits if one.rows is None or row in one.rows]
    return {"edits": json.dumps(told)} if edits else {}


def text_tokens(loaded: models.Models, prompts: Sequence[str]) -> dict[str, int]:
    """Tokens of each prompt without padding, as the pipeline's text encoder is given them."""
    texts = list(dict.fromkeys(prompts))
    study = loaded.study
    counts = study.family.text_tokens(loaded.pipe, texts, study.max_sequence_length)
    return dict(zip(texts, counts, strict=True))


def face_seconds(faces: Sequence[Face | None]) -> float:
    """Seconds that finding and embedding these faces took, each counted once; NaN without faces."""
    seconds = {face.name: face.seconds for face in faces if face is not None}
    return sum(seconds.values()) if seconds else float("nan")
