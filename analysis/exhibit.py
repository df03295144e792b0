"""What a figure and a table are to the list of them: a file that names its experiments and its caption."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, TypeVar

from stepscope.analysis.evidence import Evidence

Made = TypeVar("Made")


@dataclass(frozen=True)
class Exhibit(Generic[Made]):
    """A figure or table: its name, its caption, the experiments that it needs, and what makes it.

    words: a paragraph from the numbers, for the report; empty where there is none.
    """

    name: str
    caption: str
    experiments: tuple[str, ...]
    make: Callable[[Evidence], Made]
    words: Callable[[Evidence], str] = lambda evidence: ""


def exhibits(verb: str, *modules: ModuleType) -> dict[str, Exhibit]:
    """By name, in this order: the file's name, its first lines, EXPERIMENTS, `verb` and `words`."""
    found = [
        Exhibit(
            module.__name__.rpartition(".")[2],
            (module.__doc__ or "").strip(),
            module.EXPERIMENTS,
            getattr(module, verb),
            getattr(module, "words", Exhibit.words),
        )
        for module in modules
    ]
    return {one.name: one for one in found}


def heading(caption: str) -> str:
    """The subject of a caption: its first line up to a colon, without the full stop."""
    return caption.split("\n", 1)[0].split(":")[0].removesuffix(".")
