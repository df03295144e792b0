"""The runs of a sweep: every one checked before the first is made, and made whatever becomes of others."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import run_path
from stepscope.probes import grid, plan
from stepscope.probes.command import mistake
from stepscope.probes.composing import composed
from stepscope.probes.existing import growing, open_existing
from stepscope.probes.faces import face_files
from stepscope.probes.needed import needs
from stepscope.probes.notes import notes
from stepscope.probes.plan import counted, spoken_bytes
from stepscope.probes.preflight import model_lines, preflight
from stepscope.probes.run import next_words, run
from stepscope.probes.study import Study, prompts_of

FAILED = 2  # exit status


@dataclass
class Member:
    """One run of a sweep. words: those that tell it from the others. wrong: why it cannot be made."""

    words: str
    study: Study | None = None
    out: Path | None = None
    samples: int = 0
    left: int = 0
    size: float = 0.0
    wrong: str = ""

    def line(self) -> str:
        """Its row of the table."""
        if self.wrong:
            return f"cannot be made: {self.wrong}"
        assert self.study is not None
        state = "finished" if not self.left else f"{self.left} to make"
        return (
            f"{counted(self.samples, 'sample'):>11}, {state:<10}{counted(self.study.steps, 'step'):>9}"
            f"{spoken_bytes(self.size):>10}  {self.out}"
        )


def expand(overrides: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The overrides of each run of a sweep, `steps=1,2` giving two; and those of them that were swept."""
    choices = []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.get_key_element()
        if override.is_sweep_override():
            choices.append([(f"{key}={v}", True) for v in override.sweep_string_iterator()])
        else:
            choices.append([(override.input_line or "", False)])
    for one in product(*choices):
        yield [word for word, _ in one], [word for word, swept in one if swept]


def sweep(overrides: Sequence[str]) -> None:
    """Check every run of a sweep, show one table, and make those that can be made, one after another.

    Ends the process with status 2, and says which, where one could not be.
    """
    members = [checked(words, shlex.join(swept)) for words, swept in expand(overrides)]
    check_own_paths(members)
    print(table(members))
    good = [member.study for member in members if member.study is not None and not member.wrong]
    if good and good[0].dry:
        for member in members:
            look(member)
    else:
        for place, member in enumerate(members, 1):
            make(member, f"{place} of {len(members)}")
    told = [f"  {member.words}: {member.wrong}" for member in members if member.wrong]
    if told:
        print(
            f"{len(told)} of {counted(len(members), 'run')} failed:",
            *told,
            sep="\n",
            file=sys.stderr,
        )
        raise SystemExit(FAILED)


def checked(words: Sequence[str], named: str) -> Member:
    """A member with its plan, or with what is wrong with it."""
    member = Member(named)
    with_mistakes(member, lambda: plan_of(member, composed(words)))
    return member


def plan_of(member: Member, values: Mapping[str, Any]) -> None:
    """Find a member's faces, run and size, without loading anything."""
    study = member.study = Study.from_config(values)
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    member.out = run_path(study.out) if study.out is not None else growing(study, cells, files)
    standing = open_existing(study, member.out, cells, files)
    member.samples, member.left = len(cells), standing.left if standing is not None else len(cells)
    if not member.left:
        return
    if not study.dry and (
        lost := [need for need in needs(study) if need.cure and need.size is None]
    ):
        raise StepscopeError(f"no {lost[0].role} {lost[0].place}: {lost[0].cure}")
    found = plan.outline(study)
    member.size = sum(found.bytes_per_sample().values()) * member.left
    plan.check_space(found, member.left, member.out)


def check_own_paths(members: Sequence[Member]) -> None:
    """Mark members that would lie where another one does."""
    seen: dict[Path, str] = {}
    for member in members:
        if member.out is None or member.wrong:
            continue
        if member.out in seen:
            member.wrong = f"{member.out} is the run of {seen[member.out]}: leave out= unnamed"
        seen.setdefault(member.out, member.words)


def table(members: Sequence[Member]) -> str:
    """Every member in one line, the models that they need, and the bytes of all."""
    width = max(len(member.words) for member in members)
    lines = [f"{counted(len(members), 'run')}"]
    lines += [f"  {member.words:<{width}}  {member.line()}" for member in members]
    good = [member for member in members if not member.wrong]
    if good:
        lines.append(f"  to write, uncompressed: {spoken_bytes(sum(m.size for m in good))}")
    models = {
        (need.role, need.place): need
        for member in good
        if member.study is not None and member.left
        for need in needs(member.study)
    }
    return "\n".join([*lines, *(model_lines([*models.values()]) if models else [])])


def look(member: Member) -> None:
    """Do what `--dry` does for one run, besides its plan."""
    study = member.study
    if study is None or member.wrong or not member.left:
        return
    print(f"{member.words}")

    def work() -> None:
        files = face_files(study.faces)
        found = plan.outline(study)
        cells = grid.cells(list(files), prompts_of(study), study.seeds)
        for note in notes(study, found, cells):
            print(f"note: {note}")
        preflight(study, found, files, len(cells), print)

    with_mistakes(member, work)


def make(member: Member, where: str) -> None:
    """Make one run; keep what was wrong with it."""
    study = member.study
    if study is None or member.wrong:
        return
    if not member.left:
        print(f"{where}, {member.words}: finished, {member.out}")
        return
    print(f"{where}, {member.words}")
    said: list[str] = []
    with_mistakes(member, lambda: run(study, say=said.append))
    for line in said:
        if line.startswith("note: "):
            print(line)
    if not member.wrong and member.out is not None:
        print(f"{member.out}: {counted(member.samples, 'sample')} done\n{next_words(member.out)}")


def with_mistakes(member: Member, work: Callable[[], object]) -> None:
    """Run the member; keep an error that the user can fix, and raise any other."""
    try:
        work()
    except Exception as error:
        line = mistake(error)
        if line is None:
            raise
        member.wrong = line
        if member.study is not None:
            print(f"  {line}", file=sys.stderr)
