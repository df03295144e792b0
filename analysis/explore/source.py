"""A run on disk as the explorer reads it: names at opening, values one sample at a time.

A run may be written while it is looked at: it is opened again where its documents have changed, and
what is not there yet is missing, not an error.
"""

import json
import shlex
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.runs import GROUP, MARK, attributes
from stepscope.hooks.documents import FILE
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import run_path


class ExploreError(StepscopeError):
    """What the user named cannot be shown; the message is one line that says what would work."""


@dataclass(frozen=True)
class Contents:
    """A run's two groups, nothing read but the coordinates of axes. measured: empty if there is none."""

    recorded: xr.Dataset
    measured: xr.Dataset
    version: tuple[int, ...]

    def holding(self, name: str) -> xr.Dataset:
        """The group that has the variable. Raises ExploreError where neither has."""
        for group in (self.recorded, self.measured):
            if name in group.data_vars:
                return group
        raise ExploreError(f"no variable {name!r} in the run")

    def is_done(self, sample: int) -> bool:
        """Whether every recorded variable of the sample is complete."""
        return "done" not in self.recorded or bool(self.recorded["done"][sample].values)

    def is_measured(self, name: str, sample: int) -> bool:
        """Whether a variable of the measured group has this sample's values."""
        metric = self.measured[name].attrs.get("metric")
        mark = f"{MARK}{metric}"
        if mark not in self.measured or sample >= self.measured.sizes.get("sample", 0):
            return False
        return bool(self.measured[mark][sample].values)


@dataclass
class Source:
    """A run by its path. Raises RunError for what is no run, or of a schema that is not read.

    text: the path as the user typed it, for commands that are shown.
    """

    text: str
    path: Path = field(init=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _contents: Contents | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        self.path = run_path(self.text)
        attributes(self.path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def contents(self) -> Contents:
        """The run as it is now."""
        version = self._version()
        with self._lock:
            if self._contents is None or self._contents.version != version:
                recorded = _opened(self.path, None)
                measured = xr.Dataset()
                if (self.path / GROUP / FILE).is_file():
                    measured = _opened(self.path, GROUP)
                self._contents = Contents(recorded, measured, version)
            return self._contents

    def command(self) -> str:
        """The command that measures the run."""
        return f"stepscope measure {shlex.quote(self.text)}"

    def opening(self, group: str = "") -> str:
        """The line of Python that opens the run, or its measured group."""
        more = f', group="{group}"' if group else ""
        return f"run = xr.open_zarr({json.dumps(self.text, ensure_ascii=False)}{more})"

    def _version(self) -> tuple[int, ...]:
        """What changes when a group's document is replaced, or an array comes or goes."""
        files = (self.path / FILE, self.path / GROUP / FILE, self.path / GROUP)
        found: list[int] = []
        for file in files:
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            found += [status.st_ino, status.st_mtime_ns, status.st_size]
        if not found:
            raise ExploreError(f"{self.text} is gone: it was moved or removed")
        return tuple(found)


def _opened(path: Path, group: str | None) -> xr.Dataset:
    # `cache`: a value that was read is not kept, so that a run being written is read as it is now
    return xr.open_dataset(
        path, engine="zarr", group=group, chunks=None, cache=False, consolidated=group is None
    )


def rows(values: xr.DataArray, sample: int) -> np.ndarray:
    """One sample's values."""
    return values.isel(sample=sample).values


def plain(value: Any) -> Any:
    """A coordinate's value as JSON has it; None for what is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
