"""The study as command lines: each is expanded as Hydra's multirun does, and no cell is made twice."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.probes import members
from stepscope.probes.composing import composed
from stepscope.probes.faces import face_files
from stepscope.probes.provenance import default_out
from stepscope.probes.readings import READINGS
from stepscope.probes.study import Study, prompts_of
from stepscope.probes.usage import says

FACES = "faces"
"""What an experiment is of; another word is a kind of reference pictures, which its adapter is given."""


@dataclass(frozen=True)
class Experiment:
    """One experiment of the study.

    faces: how many of the models' faces. every_step: its runs are measured along the run, not at
    its end alone. lines: what one would give to `stepscope probe -m experiment=<name>`. readings: how
    `probes.reread` reads its runs again, and of which prompts, of all if none is named. of: `faces` of
    the models, or a kind of their `pictures`. overrides: of its runs, None for the models'. metrics: in
    place of those of faces; also of every step, by their names with `_step`, if `every_step`.
    """

    name: str
    faces: int
    every_step: bool
    lines: tuple[str, ...]
    readings: tuple[str, ...] = ()
    reread_prompts: tuple[str, ...] = ()
    of: str = FACES
    overrides: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A run that an experiment needs: its command and configuration, and where its cells lie.

    path: the run that holds them; another experiment's where that one makes the same cells.
    """

    experiment: Experiment
    command: str
    study: Study
    path: Path

    @property
    def cells(self) -> int:
        """Number of samples."""
        return max(1, len(self.study.faces)) * len(self.study.prompts) * len(self.study.seeds)

    @property
    def reread_prompts(self) -> tuple[str, ...]:
        """The prompts of which samples are read again."""
        return self.experiment.reread_prompts or tuple(prompts_of(self.study))

    @property
    def made_here(self) -> bool:
        """Whether the run at `path` is this one, not a larger one that holds its cells."""
        return str(self.path) == self.study.out


def expand(line: str) -> Iterator[list[str]]:
    """The overrides of each run of a line, `steps=1,2` giving two; quoted as in a shell."""
    yield from (words for words, _ in members.expand(shlex.split(line)))


def plan(
    experiments: Iterable[Experiment],
    faces: Sequence[str],
    overrides: Sequence[str],
    folder: Path,
    *,
    dry: bool,
    pictures: Mapping[str, Sequence[str]] | None = None,
) -> list[Planned]:
    """Every run of the experiments, those that hold others' cells first among equals.

    faces, pictures: of the models, the latter by kind; overrides: of every run whose experiment has none
    of its own. Raises StepscopeError for too few faces, unless `dry`, which then names them by number.
    """
    found = []
    for experiment in experiments:
        known = {FACES: faces, **(pictures or {})}[experiment.of]
        chosen = list(known[: experiment.faces])
        if len(chosen) < experiment.faces:
            if known or not dry:
                raise StepscopeError(
                    f"experiment {experiment.name!r} needs {experiment.faces} faces, models.faces has "
                    f"{len(known)}: name more, or take fewer, faces={max(len(known), 1)}"
                )
            chosen = [f"face {i + 1}" for i in range(experiment.faces)]
        own = overrides if experiment.overrides is None else experiment.overrides
        for line in experiment.lines:
            for each in expand(line):
                words = [f"experiment={experiment.name}", *own, *each]
                study = Study.from_config({**composed(words), "faces": chosen})
                out = folder / default_out(study).name
                said = [*words, f"faces=[{','.join(chosen)}]", f"out={out}"]
                command = f"{says('probe')} {shlex.join(said)}"
                study = replace(study, out=str(out))
                found.append(Planned(experiment, command, study, out))
    return [replace(one, path=host(one, found)) for one in found]


def host(one: Planned, others: Iterable[Planned]) -> Path:
    """The largest run with the same settings whose grid holds this one's; itself if none is larger."""
    holding = [other for other in others if holds(other.study, one.study)]
    return Path(max(holding, key=lambda other: other.cells).study.out or "")


def idle_limits(words: Iterable[str], planned: Sequence[Planned]) -> list[str]:
    """The words `study.NAME.faces=N` that save nothing: another experiment makes the same samples."""
    found = []
    for word in words:
        match = re.fullmatch(r"study\.(\w+)\.faces=(\d+)", word)
        own = [one for one in planned if match and one.experiment.name == match[1]]
        if match and own and not any(one.made_here for one in own):
            found.append(
                f"{word} makes no run smaller, for other experiments have its samples; faces={match[2]} is "
                "of all experiments"
            )
    return found


def holds(larger: Study, smaller: Study) -> bool:
    """Whether two studies differ in their grid alone, and every cell of one is in the other."""
    grid = {word: getattr(smaller, word) for word in ("faces", "prompts", "seeds", "out")}
    return replace(larger, **grid) == smaller and all(
        set(getattr(smaller, word)) <= set(getattr(larger, word))
        for word in ("faces", "prompts", "seeds")
    )


def chosen_faces(given: Any, of_models: Any, *, dry: bool) -> tuple[list[str], int | None]:
    """The portraits of a study, folders spread out, and the most of an experiment, None for its own.

    given: the key `faces`, portraits in place of the models', or how many of those. Raises StepscopeError
    for what does not exist, and for a number below 1.
    """
    count = None
    if isinstance(given, int | float):
        if given < 1 or isinstance(given, bool | float):
            raise StepscopeError(f"faces={given}: name portraits, or a number of portraits")
        count, given = given, None
    named: Any = of_models if given is None else given
    named = [named] if isinstance(named, str) else list(map(str, named or []))
    files = [str(path) for path in face_files(named, "faces").values()] if named else []
    if given is not None and not files and not dry:
        raise StepscopeError("faces is empty: name portraits, or a folder of them")
    if given is not None:
        count = len(files)
    if count is not None and files and count > len(files):
        raise StepscopeError(f"faces={count}: models.faces has {len(files)}")
    return files, count


def chosen_pictures(given: Any, of_models: Mapping[str, Any]) -> dict[str, list[str]]:
    """The reference pictures of a study by kind, folders spread out.

    given: the key `faces`; a number is also the most of each kind. Raises StepscopeError for what does not
    exist.
    """
    found = {}
    for kind, named in of_models.items():
        named = [named] if isinstance(named, str) else list(map(str, named or []))
        files = face_files(named, f"models.pictures.{kind}") if named else {}
        found[kind] = [*map(str, files.values())][: given if isinstance(given, int) else None]
    return found


def experiments(
    study: Mapping[str, Any],
    names: Sequence[str] | None,
    most: int | None = None,
    pictures: Mapping[str, Sequence[str]] | None = None,
) -> list[Experiment]:
    """The named experiments of a study, all if None. Raises StepscopeError for an unknown one.

    most: faces of an experiment at most. pictures: by kind; an experiment of one has those that there are,
    and without any it is left out, or refused where it is named.
    """
    for name in names or ():
        if name not in study:
            raise StepscopeError(f"experiments: no {name!r}; {nearest(name, study)}")
    for name, values in study.items():
        for reading in values.get("readings") or ():
            if reading not in READINGS:
                raise StepscopeError(
                    f"study.{name}.readings: no {reading!r}; {nearest(str(reading), READINGS)}"
                )
    found = []
    for name, values in study.items():
        if names is not None and name not in names:
            continue
        of, overrides = values.get("of", FACES), values.get("overrides")
        limit = most or values["faces"] if of == FACES else len((pictures or {}).get(of, ()))
        if not limit and names is None:
            continue
        if not limit:
            raise StepscopeError(
                f"experiment {name!r} needs reference pictures: {says('paper')} models=full "
                f"{words_for([of])}"
            )
        found.append(
            Experiment(
                name,
                min(values["faces"], limit),
                values["every_step"],
                tuple(values["lines"]),
                tuple(values.get("readings") or ()),
                tuple(values.get("reread_prompts") or ()),
                of,
                None if overrides is None else tuple(overrides),
                tuple(values.get("metrics") or ()),
            )
        )
    return found


def left_out(study: Mapping[str, Any], pictures: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The experiments whose kind of pictures is not there, each with the kind."""
    kinds = {name: values.get("of", FACES) for name, values in study.items()}
    return {name: of for name, of in kinds.items() if of != FACES and not pictures.get(of)}


def words_for(kinds: Iterable[str]) -> str:
    """The words of a command that name reference pictures of these kinds."""
    return " ".join(f"'models.pictures.{kind}=[FOLDER]'" for kind in dict.fromkeys(kinds))
