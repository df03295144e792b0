"""Errors that a user can act on: one line that quotes their words and says the nearest thing that works."""

import difflib
from collections.abc import Iterable


class StepscopeError(Exception):
    """A mistake or a shortage that the user can fix; its message says how, without a traceback."""


class UnsupportedPipelineError(StepscopeError):
    """The pipeline, its scheduler or its compiled state cannot be recorded correctly."""


class RunError(StepscopeError):
    """The Zarr run on disk does not fit the request, or is damaged."""


class RunExistsError(RunError):
    """The path of a new run already exists."""


class UnsupportedPathError(StepscopeError):
    """A path that is an address of another store, such as a bucket, or of no known home folder."""


class EditError(StepscopeError):
    """An edit that changes nothing, or does not fit the call."""


class StepscopeWarning(UserWarning):
    """Something was not recorded, or is NaN or infinite; the pipeline's call continues."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words closest to `word`, as a phrase for an error message."""
    words = list(known)
    begun = [
        one for one in words if word and one.startswith(word)
    ]  # `figure3` of `figure3_early_window`
    close = begun[:count] or difflib.get_close_matches(word, words, n=count, cutoff=0.4)
    if close:
        return "did you mean " + " or ".join(repr(w) for w in close) + "?"
    shown = ", ".join(words[:8]) + (", …" if len(words) > 8 else "")
    return f"known: {shown}"
