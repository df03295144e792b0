"""The run that already stands at a study's path: opened if it is the study's, refused if not.

A run is the study's if it was made with the same settings and models. Its samples may be fewer than the
study's, which are then added, and more if those of the study are all done.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from stepscope.hooks.errors import RunError, StepscopeError
from stepscope.hooks.labels import stored_seed
from stepscope.hooks.store import Run
from stepscope.probes import grid, model_files, provenance
from stepscope.probes.claims import at_work
from stepscope.probes.file_digest import digest
from stepscope.probes.study import Study
from stepscope.probes.usage import says

SHOWN = 6  # differences that one line names
GRID = {"faces", "prompts", "seeds"}
"""Settings that say which samples a run has, and which a run may be given more of."""
Sample = tuple[str, str, int]


@dataclass(frozen=True)
class Standing:
    """A run that stands at a study's path.

    cells: the study's samples in the order of the run, those behind its end not yet in it.
    """

    run: Run
    cells: tuple[grid.Cell, ...]

    @property
    def new(self) -> list[grid.Cell]:
        """Samples that the run has no places for."""
        return [cell for cell in self.cells if cell.index >= self.run.size]

    @property
    def left(self) -> int:
        """How many samples are not done."""
        done = self.run.done
        return sum(cell.index >= len(done) or not done[cell.index] for cell in self.cells)


def open_existing(
    study: Study, out: Path, cells: Sequence[grid.Cell], files: Mapping[str, Path]
) -> Standing | None:
    """The run at `out`, if there is one.

    Raises RunError, with the difference, if it was made by another configuration or by other models,
    or if a file that the configuration names (prompts, a face, latents) says something else by now.
    """
    if not out.exists():
        return None
    try:
        run = Run.open(out)
    except RunError as error:
        raise RunError(f"{error}; name another out=") from error
    old = run.attributes.get("configuration")
    if old is None:
        raise RunError(f"{out} was not made by `{says('probe')}`: choose another out=")
    changed = provenance.differences(old, provenance.configuration(study))
    if any(model_files.role_of(key) is None for key in changed.keys() - GRID):
        refuse(out, "another configuration", lines(changed))
    standing = placed(run, cells)
    if study.initial_latents is not None and standing is not None and standing.left:
        # latents of each sample are in the order of the grid
        standing = standing if list(standing.cells) == list(cells) else None
    if standing is None:
        told = [*lines({k: v for k, v in changed.items() if k in GRID}), *other_samples(run, cells)]
        refuse(out, "another configuration", told)
        raise AssertionError("a difference is told")
    refuse(out, "another configuration", other_files(run, study, files))
    check_same_models(run, study)
    return standing


def growing(study: Study, cells: Sequence[grid.Cell], files: Mapping[str, Path]) -> Path:
    """Where a study without `out` lies: in a run of fewer of its samples, which it adds to, or its own."""
    own = provenance.default_out(study)
    if own.exists():
        return own
    stem = own.stem.rpartition("-")[0]
    found: list[tuple[int, Path]] = []
    for path in sorted(own.parent.glob(f"{stem}-*.zarr")):
        with suppress(StepscopeError):
            standing = open_existing(study, path, cells, files)
            if standing is not None:
                found.append((standing.run.size, path))
    return max(found, default=(0, own))[1]


def placed(run: Run, cells: Sequence[grid.Cell]) -> Standing | None:
    """The samples with their places in a run; None for a run of which neither holds the other.

    A run with samples that the study does not have is not continued, and so only a finished one is.
    """
    there = {sample: place for place, sample in enumerate(samples_of(run))}
    named = [(cell, sample_of(cell)) for cell in cells]
    places = {sample: there[sample] for _, sample in named if sample in there}
    behind = run.size
    found = []
    for cell, sample in named:
        if sample not in places:
            places[sample], behind = behind, behind + 1
        found.append(replace(cell, index=places[sample]))
    standing = Standing(run, tuple(sorted(found, key=lambda cell: cell.index)))
    if there.keys() <= places.keys():
        return standing
    return standing if not standing.new and not standing.left else None


def samples_of(run: Run) -> Iterator[Sample]:
    for face, prompt, seed in zip(*map(run.read, ("face", "prompt", "seed")), strict=True):
        yield str(face), str(prompt), int(seed)


def sample_of(cell: grid.Cell) -> Sample:
    return cell.face, cell.prompt, stored_seed(cell.seed)


def check_same_models(run: Run, study: Study) -> None:
    """Raise RunError if a model is not the one that the run was made with.

    One that was moved is the same; one that was moved and is not here may be another. What was found
    the same is remembered by the run, so that large files are not read at every start.
    """
    about = run.attributes
    seen = model_files.compare(about, study)
    changed = provenance.differences(about["configuration"], provenance.configuration(study))
    moved = {
        key: words
        for key, words in changed.items()
        if key not in GRID and model_files.role_of(key) not in seen.same
    }
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
        makers = at_work(Run.open(out))
        cure = (
            f"It is being made by {', '.join(makers)}: choose another out=, or wait until that ends and "
            "add to what is there then"
            if makers
            else "Choose another out=, or remove it"
        )
        told = "; ".join([*changed[:SHOWN], *more])
        raise RunError(f"{out} was made with {what}: {told}. {cure}")


def lines(changed: Mapping[str, str]) -> list[str]:
    """Differences of two configurations, a setting each."""
    return [f"{key}: {difference}" for key, difference in changed.items()]


def other_samples(run: Run, cells: Sequence[grid.Cell]) -> list[str]:
    """The first sample of a run that is not in the grid, and how many those are."""
    now = {sample_of(cell) for cell in cells}
    gone = [(place, sample) for place, sample in enumerate(samples_of(run)) if sample not in now]
    if not gone:
        return [f"it has {run.size} samples, and not all of these {len(cells)} are done"]
    place, (face, prompt, seed) = gone[0]
    whose = f"face {face}, " if face else ""
    return [
        f"its sample {place} ({whose}prompt {prompt!r}, seed {seed}) is not in this grid: to add samples, "
        "name those that the run has as well"
    ]


def other_files(run: Run, study: Study, faces: Mapping[str, Path]) -> list[str]:
    """Which of the files that the configuration names hold something else than when the run was made."""
    inputs = provenance.inputs(study)
    return [
        f"the file of face {name} was changed"
        for name, then in run.attributes["faces"].items()
        if name in faces and digest(faces[name]) != then["file_sha256"]
    ] + [
        f"the file of {key} was changed"
        for key, then in run.attributes.get("inputs", {}).items()
        if inputs.get(key, then) != then
    ]
