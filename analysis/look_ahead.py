"""What a whole study needs and what is here, before its first run: models, disk, metrics and faces."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from stepscope.analysis.commands import FACES, Planned
from stepscope.hooks.errors import StepscopeError
from stepscope.probes import plan
from stepscope.probes.faces import face_files
from stepscope.probes.needed import Need, needs
from stepscope.probes.places import located
from stepscope.probes.plan import spoken_bytes
from stepscope.probes.preflight import look_at_files, model_lines

Say = Callable[[str], None]


def look_ahead(
    planned: Sequence[Planned], out: Path, metrics: Callable[[], None], say: Say
) -> None:
    """Say which models, how much disk and which faces there are, and what is missing.

    metrics: raises StepscopeError for what measuring lacks. Raises nothing: a plan may be for another
    machine.
    """
    wanted = all_needs(planned)
    say("\n".join(model_lines(wanted)))
    wrong = [f"no {need.role} {need.place}" for need in wanted if need.cure]
    if not any(need.role == "backbone" and need.cure for need in wanted):
        wrong += disk(planned, out, say)
    try:
        metrics()
    except StepscopeError as error:
        wrong.append(str(error))
    wrong += faces(planned, wanted, say)
    say(
        f"not ready here: {'; '.join(wrong)}"
        if wrong
        else "ready: the same command without --dry makes it"
    )


def all_needs(planned: Sequence[Planned]) -> list[Need]:
    """Every model of the runs, each once."""
    return [*{(n.role, n.place): n for one in planned for n in needs(one.study)}.values()]


def disk(planned: Sequence[Planned], out: Path, say: Say) -> list[str]:
    """Bytes that are still to be written, and whether they are free."""
    own = {one.path: one for one in planned if one.made_here and not one.path.exists()}
    needed = 0.0
    for one in own.values():
        needed += sum(plan.outline(one.study).bytes_per_sample().values()) * one.cells
    free = plan.free_bytes(out)
    say(f"disk      {spoken_bytes(needed)} to write, uncompressed; {spoken_bytes(free)} free")
    return [] if needed <= free else [f"{spoken_bytes(needed)} do not fit on the disk of {out}"]


def faces(planned: Sequence[Planned], wanted: Sequence[Need], say: Say) -> list[str]:
    """How each portrait and picture of the study is found; what is wrong."""
    with_faces = [one for one in planned if one.study.reads]
    wrong = []
    for of in dict.fromkeys(one.experiment.of for one in with_faces):
        studies = [one.study for one in with_faces if one.experiment.of == of]
        names = list(dict.fromkeys(face for study in studies for face in study.faces))
        if not names or not all(located(name).exists() for name in names):
            wrong.append("no portraits are named: faces=[...]" if of == FACES else f"no {of}")
            continue
        study = replace(studies[0], faces=tuple(names))
        for adapter in study.adapters.values():
            wrong += look_at_files(study, adapter, face_files(names), wanted, say)
    return wrong
