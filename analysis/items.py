"""Every figure and table of a study: made, saved, and described for the report."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from stepscope.analysis.commands import Planned
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.exhibit import Exhibit
from stepscope.analysis.figures import FIGURES
from stepscope.analysis.figures.style import save, styled
from stepscope.analysis.report import Item
from stepscope.analysis.tables import TABLES
from stepscope.analysis.tables.table import Table
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import local_path

Say = Callable[[str], None]
KINDS: Mapping[str, Mapping[str, Exhibit]] = {"figures": FIGURES, "tables": TABLES}


def make_items(
    config: Mapping[str, Any],
    evidence: Evidence,
    planned: Sequence[Planned],
    say: Say,
    hidden: Sequence[str] = (),
) -> list[Item]:
    """Make and save every figure and table; one that lacks something says what.

    hidden: experiments; what needs these alone is made only where it is named.
    """
    items = []
    for kind, known in KINDS.items():
        folder = local_path(config["out"], "out") / kind
        every = [
            n
            for n, one in known.items()
            if not {*one.experiments} or {*one.experiments} - {*hidden}
        ]
        for name in every if config[kind] is None else config[kind]:
            exhibit = known[name]
            about = describe_item(config, kind, exhibit, planned)
            try:
                with styled():
                    made = exhibit.make(evidence)
                    items.append(
                        Item(
                            **about, **save_item(made, folder, name), words=exhibit.words(evidence)
                        )
                    )
            except StepscopeError as error:
                items.append(Item(**about, missing=str(error)))
                say(f"{name}: not made, {error}")
    return items


def save_item(made: Any, folder: Path, name: str) -> dict[str, Any]:
    """Write a figure as PDF and PNG, a table as CSV, Markdown and LaTeX; what an item shows of it."""
    if isinstance(made, Table):
        made.save(folder, name)
        return {"table": made}
    return {"image": save(made, folder, name)[1]}


def describe_item(
    config: Mapping[str, Any], kind: str, exhibit: Exhibit, planned: Iterable[Planned]
) -> dict[str, Any]:
    """What the report says of an item besides showing it."""
    name = exhibit.name
    behind = [one for one in planned if one.experiment.name in exhibit.experiments]
    needs = dict.fromkeys(one.experiment.name for one in behind)
    (other,) = KINDS.keys() - {kind}
    alone = [f"{kind}=[{name}]", f"{other}=[]", f"experiments=[{','.join(needs)}]", "report=false"]
    drawn = sorted({one.study.backbone.name for one in behind})
    grid = {
        (len(o.study.faces), o.experiment.of, len(o.study.prompts), len(o.study.seeds))
        for o in behind
    }
    cells = "; ".join(f"{f} {of} x {p} prompts x {s} seeds" for f, of, p, s in sorted(grid))
    return {
        "name": name,
        "caption": f"{exhibit.caption}\n\nDrawn by {', '.join(drawn)} ({cells})."
        if behind
        else exhibit.caption,
        "command": f"{config['command']} {shlex.join([*overrides(), *alone])}",
        "commands": [one.command for one in behind],
        "runs": list(dict.fromkeys(one.path.name for one in behind)),
    }


def overrides() -> list[str]:
    """The words of this command that say which study it is, and not which of its figures are made."""
    chosen = (*KINDS, "experiments", "report", "dry")
    return [word for word in task_words() if word.split("=")[0] not in chosen]


def task_words() -> list[str]:
    """The words of this command, none where Hydra did not start it."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
