"""The run on disk: created whole, filled by samples in chunks of their own, `done` last.

A run is one Zarr group of arrays with named dimensions, so that plain `xarray.open_zarr(path)` shows
everything. Files are replaced by renames, and a new run is built under another name first, so that a
kill at any instant leaves either no run or a run whose `done` is true exactly for complete samples.
"""

import glob
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hooks.blank import Label, column, make_blank
from hooks.chunks import Chunks
from hooks.documents import FILE, Documents
from hooks.errors import RunError
from hooks.layout import Layout
from hooks.vocabulary import SAMPLE_COORDINATES, SCHEMA_VERSION, STEP_COORDINATES


class Run:
    """A Zarr run on disk that samples are written into.

    Built by `Run.create` or `Run.open`. Not safe for two processes at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: dict[str, np.ndarray] = {}
        self._documents = Documents(path)
        self._arrays = {
            name: Chunks(path / name, document) for name, document in self._documents.arrays.items()
        }
        if "done" not in self._arrays:
            raise RunError(f"{path} is damaged: its {FILE} names no `done`")
        self._marked = set(np.flatnonzero(self.read("done")).tolist())
        self._growing = [n for n, a in self._arrays.items() if a.dimensions[0] == "sample"]
        self._recorded = {
            n for n in self._growing if n not in (*SAMPLE_COORDINATES, "sample", "done")
        }

    @classmethod
    def create(
        cls,
        path: str | Path,
        layout: Layout,
        labels: Sequence[Label],
        attributes: Mapping[str, Any],
    ) -> "Run":
        """A new run with a place for every label, none of them done.

        attributes: provenance, JSON values. Raises RunError if something already stands at `path`.
        """
        path = Path(path)
        if path.exists():
            raise RunError(f"{path} already exists")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):  # by a killed process
            shutil.rmtree(left, ignore_errors=True)
        make_blank(partial, layout, labels, attributes)
        partial.rename(path)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run at `path`.

        Raises RunError if there is none, if its schema is another version, or if a coordinate is
        damaged: Zarr would read a lost one as the fill value.
        """
        path = Path(path)
        if not (path / FILE).exists():
            raise RunError(f"{path} is not a run: it has no {FILE}")
        version = Documents(path).attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {version}; this stepscope writes {SCHEMA_VERSION}"
            )
        run = cls(path)
        run._refuse_damaged()
        return run

    @property
    def attributes(self) -> dict[str, Any]:
        """The run's provenance as it was given to `create`, and the schema version."""
        return self._documents.attributes

    def annotate(self, **attributes: Any) -> None:
        """Replace attributes of the run, visible at once to readers."""
        self._documents.annotate(**attributes)

    @property
    def done(self) -> np.ndarray:
        """Which samples are complete, (sample,) bool: marked so, and none of their files is lost.

        A chunk without a file is the fill value to Zarr and xarray, NaN or 0 (Zarr-Python 3.1 has no
        setting that refuses it), so it is looked for.
        """
        done = self.read("done")
        for sample in np.flatnonzero(done):
            done[sample] = all(self._arrays[name].has(int(sample)) for name in self._recorded)
        return done

    def read(self, name: str) -> np.ndarray:
        """A whole variable. Analysis reads with xarray; this is for those who hold the run open."""
        return self._arrays[name].read()

    def write(self, sample: int, values: Mapping[str, np.ndarray]) -> None:
        """Write every variable of one sample, then mark it done; meanwhile it is not.

        Raises RunError as `refuse_other` does.
        """
        self.refuse_other(values)
        if sample in self._marked:  # made again: half of it would be old
            self._arrays["done"].write(sample, np.array([False]))
        for name, value in values.items():
            self._arrays[name].write(sample, value[None])
        self._arrays["done"].write(sample, np.array([True]))
        self._marked.add(sample)

    def refuse_labels(self, labels: Sequence[Label]) -> None:
        """Raise RunError for a label that the run cannot hold."""

    def refuse_other(self, values: Mapping[str, np.ndarray]) -> None:
        """Raise RunError if a sample's variable is missing, unknown, or of another shape than the run's."""
        if set(values) != self._recorded:
            raise RunError(
                f"{self.path} holds other variables than this call made: missing "
                f"{sorted(self._recorded - set(values))}, new {sorted(set(values) - self._recorded)}"
            )
        for name, value in values.items():
            shape = self._arrays[name].shape[1:]
            if value.shape != shape:
                raise RunError(f"{name} is {value.shape} here and {shape} in {self.path}")

    def write_steps(self, values: Mapping[str, np.ndarray]) -> None:
        """Write the variables that belong to steps alone: sigma and timestep, (step,) each.

        Raises RunError if the run has other values already.
        """
        for name, value in values.items():
            known = self._steps.get(name)
            old = self.read(name) if known is None else known
            if np.isnan(old).all():
                self._arrays[name].write(0, value)
            elif not np.array_equal(old, value):
                raise RunError(f"{self.path} was recorded on another schedule: {name} differs")
            self._steps[name] = value

    def _refuse_damaged(self) -> None:
        for name in set(self._arrays) - self._recorded - {"done"}:
            whole = self._arrays[name].whole()
            written = bool(self._marked) or name not in STEP_COORDINATES
            if written and not whole:
                raise RunError(
                    f"{self.path} is damaged: {name} has lost a file. Remove it and record it again"
                )

    def append(self, labels: Sequence[Label], samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Add complete samples at the end, each with its label and every variable.

        They are written past the end and the run grows last, in one rename: a process killed before
        it leaves the run of before. Raises RunError as `refuse_other` does.
        """
        for values in samples:
            self.refuse_other(values)
        old = self._arrays["done"].shape[0]
        size = old + len(samples)
        for sample, values in enumerate(samples, old):
            for name, value in values.items():
                self._arrays[name].write(sample, value[None])
        for name in SAMPLE_COORDINATES:
            self._arrays[name].write(old, column(labels, name))
        self._arrays["sample"].write(old, np.arange(old, size))
        self._arrays["done"].write(old, np.ones(len(samples), bool))
        self._documents.grow(self._growing, size)
        self._marked.update(range(old, size))


def bytes_on_disk(path: str | Path) -> int:
    """Bytes of all files of a run."""
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())
