"""The edits that are open on each pipeline, for those who record it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from stepscope.hooks.edits.editing import Editing

_OPEN: WeakKeyDictionary[Any, list[Editing]] = WeakKeyDictionary()


@contextmanager
def opened(editing: Editing) -> Iterator[None]:
    """Known to be open for as long as the `with` lasts."""
    all_of_pipe = _OPEN.setdefault(editing.pipe, [])
    all_of_pipe.append(editing)
    editing.beside = all_of_pipe
    try:
        yield
    finally:
        all_of_pipe.remove(editing)


def told_edits(pipe: Any, sample: int | None = None) -> list[dict[str, Any]]:
    """The open edits of a pipeline as JSON values, in the order in which they are made.

    sample: of the batch; those that touch it. None: all.
    """
    return [told for editing in _OPEN.get(pipe, []) for told in editing.told(sample)]
