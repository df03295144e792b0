"""The run that already stands at a study's path: opened if it is the study's, refused if not."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from stepscope.hooks.errors import RunError
from stepscope.hooks.labels import stored_seed
from stepscope.hooks.store import Run
from stepscope.probes import grid, identity, provenance
from stepscope.probes.study import Study
from stepscope.probes.weights import digest

SHOWN = 6  # differences that one line names


def open_existing(
    study: Study, out: Path, cells: Sequence[grid.Cell], files: Mapping[str, Path]
) -> Run | None:
    """The run at `out`, if there is one.

    Raises RunError, with the difference, if it was made by another configuration or by other models,
    or if a file that the configuration names (prompts, a face, latents) says something else by now.
    """
    if not out.exists():
        return None
    run = Run.open(out)
    old = run.attributes.get("configuration")
    if old is None:
        raise RunError(f"{out} was not made by `python -m probes`: choose another out=")
    changed = provenance.differences(old, provenance.configuration(study))
    if changed.keys() - identity.PLACES.keys():
        refuse(out, "another configuration", lines(changed))
    refuse(out, "another configuration", other_samples(run, cells))
    refuse(out, "another configuration", other_files(run, study, files))
    refuse_other_models(run, study)
    return run


def refuse_other_models(run: Run, study: Study) -> None:
    """Raise RunError if a model is not the one that the run was made with.

    One that was moved is the same; one that was moved and is not here may be another. What was found
    the same is remembered by the run, so that large files are not read at every start.
    """
    about = run.attributes
    seen = identity.compare(about, study)
    changed = provenance.differences(about["configuration"], provenance.configuration(study))
    moved = {k: v for k, v in changed.items() if identity.PLACES[k] not in seen.same}
    refuse(run.path, "another configuration", [*lines(moved), *seen.other] if moved else [])
    refuse(run.path, "other models", seen.other)
    stamps = about.get("weight_stamps", {})
    if stamps | seen.stamps != stamps:
        with suppress(OSError):  # a run that may only be read
            run.annotate(weight_stamps=stamps | seen.stamps)


def refuse(out: Path, what: str, changed: Sequence[str]) -> None:
    """Raise RunError if something has changed since the run was made."""
    if changed:
        more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
        raise RunError(
            f"{out} was made with {what}: {'; '.join([*changed[:SHOWN], *more])}. "
            "Choose another out=, or remove it"
        )


def lines(changed: Mapping[str, str]) -> list[str]:
    """Differences of two configurations, a setting each."""
    return [f"{key}: {difference}" for key, difference in changed.items()]


def other_samples(run: Run, cells: Sequence[grid.Cell]) -> list[str]:
    """How the samples that a run has places for differ from the grid: the first that does."""
    then = list(zip(*(run.read(name) for name in ("face", "prompt", "seed")), strict=True))
    if len(then) != len(cells):
        return [f"samples: {len(then)} -> {len(cells)}"]
    for cell, (face, prompt, seed) in zip(cells, then, strict=True):
        old = str(face), str(prompt), int(seed)
        new = cell.face, cell.prompt, stored_seed(cell.seed)
        if old != new:
            return [f"sample {cell.index}: {old} -> {new}"]
    return []


def other_files(run: Run, study: Study, faces: Mapping[str, Path]) -> list[str]:
    """Which of the files that the configuration names hold something else than when the run was made."""
    inputs = provenance.inputs(study)
    return [
        f"the file of face {name} was changed"
        for name, then in run.attributes["faces"].items()
        if digest(faces[name]) != then["file_sha256"]
    ] + [
        f"the file of {key} was changed"
        for key, then in run.attributes.get("inputs", {}).items()
        if inputs.get(key, then) != then
    ]
