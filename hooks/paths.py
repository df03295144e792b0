"""Paths as a user types them: the home folder by its sign, and what is no path of this machine."""

import os
import re
from difflib import get_close_matches
from pathlib import Path

from stepscope.hooks.errors import RunError, UnsupportedPathError

# At least two letters: `C:/` is a drive. `pathlib` has made one slash of two. Filesystems that stand on
# one another are named `simplecache::s3://`.
_SCHEME = re.compile(r"([A-Za-z][\w+.-]+):(:[\w+.-]+:)*/")


def local_path(text: str | os.PathLike[str], what: str = "path") -> Path:
    """The path on this machine, `~` and `~user` expanded.

    what: what the path is of, for the message. Raises UnsupportedPathError for an address of another
    store (`s3://…`, `gs://…`, `http://…`, `memory://…`), and for the home of a user that is not known.
    """
    words = os.fspath(text)
    scheme = _SCHEME.match(words)
    if scheme:
        raise UnsupportedPathError(
            f"{what} {words!r}: {scheme[1]} is not supported yet, name a path of this machine"
        )
    try:
        return Path(words).expanduser()
    except RuntimeError as error:  # `~ada`, and there is no such user
        raise UnsupportedPathError(f"{what} {words!r}: {error}") from error


def beside(path: Path) -> str:
    """The nearest names in the folder of a path that does not exist, as the end of an error message."""
    try:
        there = sorted(one for one in path.parent.iterdir() if not one.name.startswith("."))
    except OSError:
        return ""
    there = [one for one in there if one.suffix == path.suffix] or there
    stems = dict.fromkeys(one.stem for one in there)
    close = get_close_matches(path.stem, stems, n=3, cutoff=0.6)  # ends, such as .zarr, are alike
    names = [repr(one.name) for stem in close for one in there if one.stem == stem]
    return f"; did you mean {' or '.join(names[:3])}?" if names else ""


def run_path(text: str | os.PathLike[str]) -> Path:
    """Where a run lies, or will. Raises UnsupportedPathError as `local_path` does."""
    return local_path(text, "run")


def check_writable(path: Path) -> None:
    """Raise RunError if nothing can be written at the path, in words that name what stands in the way."""
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise RunError(f"{path} cannot be written: {there} is a file")
    # a filesystem that is read-only says so to root too
    if not os.access(there, os.W_OK | os.X_OK):
        raise RunError(f"{path} cannot be written: {there} is read-only")
