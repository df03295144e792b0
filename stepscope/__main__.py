"""`stepscope COMMAND WORD...`: the entry modules under one name, from any folder."""

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from stepscope.hooks.errors import nearest


@dataclass(frozen=True)
class Command:
    """A command of `stepscope`.

    module: has `main`. does: its line in the list of commands. extra: what `pip install 'stepscope[…]'`
    adds for it. config: the configuration of `conf` that its words change; None where they are options.
    """

    module: str
    does: str
    extra: str = "evidence"
    config: str | None = None


COMMANDS = {
    "probe": Command(
        "stepscope.probes.__main__", "record a grid of faces, prompts and seeds", config="config"
    ),
    "check": Command(
        "stepscope.probes.check", "prove on your models that a record is right", config="config"
    ),
    "reread": Command(
        "stepscope.probes.reread",
        "evaluate recorded latents without the adapter",
        config="reread",
    ),
    "intervene": Command(
        "stepscope.probes.intervene",
        "continue recorded samples under edits: which steps and blocks identity needs",
        config="intervene",
    ),
    "measure": Command(
        "stepscope.analysis.__main__",
        "measure identity, sharpness and time of runs",
        config="analysis",
    ),
    "planted": Command(
        "stepscope.analysis.planted.benchmark",
        "rank methods by how well they find where identity was planted",
        config="planted",
    ),
    "paper": Command(
        "stepscope.analysis.paper", "make a study: runs, figures, tables, a report", config="paper"
    ),
    "explore": Command(
        "stepscope.analysis.explore.command", "look at runs in a browser", extra="reading"
    ),
}
MISTAKE = 2
"""Exit status where the user can mend what is wrong."""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words say; returns the exit status."""
    name, *rest = (sys.argv[1:] if words is None else [*words]) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(importlib.metadata.version("stepscope"))
        return 0
    if name not in COMMANDS:
        print(f"stepscope has no command {name!r}; {nearest(name, COMMANDS)}", file=sys.stderr)
        return MISTAKE
    return run(name, rest)


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"    {name:{width}}  {command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "stepscope COMMAND WORD...",
            "",
            *lines,
            "",
            "stepscope COMMAND -h lists a command's words.",
        ]
    )


def run(name: str, words: Sequence[str]) -> int:
    """Do a command; returns its exit status. Where a package is missing, the line says what installs it."""
    chosen = COMMANDS[name]
    sys.argv = [f"stepscope {name}", *words]
    try:
        if chosen.config is None:
            return import_module(chosen.module).main()
        if {"-h", "--help"} & {*words}:
            with import_module("stepscope.probes.pipe").may_be_cut():
                print(import_module("stepscope.probes.usage").usage(chosen.config, words, name))
            return 0
        return import_module("stepscope.probes.command").command(import_module(chosen.module).main)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("stepscope"):
            raise
        cure = f"pip install 'stepscope[{chosen.extra}]'"
        print(f"stepscope {name} needs the package {error.name}: {cure}", file=sys.stderr)
        return MISTAKE


if __name__ == "__main__":
    sys.exit(main())
