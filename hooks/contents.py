"""What a run holds as its documents say: its arrays by their roles, and how they grow under its lock."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks.blank import columns, document
from stepscope.hooks.chunks import Chunks
from stepscope.hooks.documents import FILE, MEASURED, SCRATCH, Documents
from stepscope.hooks.errors import RunError
from stepscope.hooks.labels import ABSENT, KNOWN, Column, Label, columns_of, values_of
from stepscope.hooks.lock import alone


class Contents:
    """The arrays of a run on disk, as of the last time that its lock was held.

    arrays: by name. columns: of those, the sample coordinates. recorded: those with values of every
    sample that are no coordinate, besides `done`. taken: names that are not a sample coordinate's.
    scratch: the folder of locks and of what is not finished.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.scratch = path, path / SCRATCH
        self.documents = Documents(path)
        self._read()

    def _read(self) -> None:
        documents = self.documents.arrays
        if "done" not in documents:
            raise RunError(f"{self.path} is damaged: its {FILE} names no `done`")
        self.arrays = {name: self._array(name, about) for name, about in documents.items()}
        self.columns: dict[str, Column] = KNOWN | columns(documents)
        along = {name for name, array in self.arrays.items() if array.dimensions[0] == "sample"}
        self.recorded = along - {*self.columns, "sample", "done"}
        axes = {axis for array in self.arrays.values() for axis in array.dimensions}
        self.taken = {*self.arrays, *axes} - self.columns.keys()

    def _array(self, name: str, about: Mapping[str, Any]) -> Chunks:
        return Chunks(self.path / name, about, self.scratch)

    @property
    def size(self) -> int:
        """How many samples there are."""
        return self.arrays["done"].shape[0]

    def check_present(self) -> None:
        """Raise RunError if the run is there no more."""
        if not self.scratch.is_dir():
            raise RunError(f"{self.path} is gone: it was moved or removed")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run's lock, and see the run as other processes have left it. Raises RunError."""
        self.check_present()
        with alone(self.scratch / ".lock", str(self.path)):
            if self.documents.refresh():
                self._read()
            yield

    def grow(
        self,
        labels: Sequence[Label],
        attributes: Mapping[str, Any] | None = None,
        *,
        done: bool = True,
    ) -> None:
        """Make samples known whose values were written past the end, with their labels. Under the lock.

        They are seen all at once, when the group's document is replaced; it is the last thing written.
        attributes: of the run, that change with it. done: False for places that nothing was written to.
        """
        old, size = self.size, self.size + len(labels)
        self.documents.sweep()
        others = self._write_labels(labels, old)
        for name in self.documents.along_sample():
            group, _, own = name.rpartition("/")
            array = self._array(name, self.documents.array(name))
            if own == "sample":
                array.write(old, np.arange(old, size))
            elif group == MEASURED and own in KNOWN:  # what was measured repeats some coordinates
                array.write(old, KNOWN[own].stored(values_of(labels, own)))
        self.arrays["done"].write(old, np.full(len(labels), done))
        self.documents.grow(size, others, attributes)
        if others:
            self._read()

    def _write_labels(self, labels: Sequence[Label], old: int) -> dict[str, Any]:
        """Write the coordinates of samples from `old` on; the documents of arrays that are others now."""
        others = {}
        new = columns_of(labels, self.columns, old)
        for name, column in (self.columns | new).items():
            values = values_of(labels, name)
            if name not in new and column.holds(values):
                self.arrays[name].write(old, column.stored(values))
                continue
            known = self.documents.arrays
            if name in new:
                values = [*[ABSENT] * old, *values]
            else:
                values = [*column.given_back(self.arrays[name].read()), *values]
                column = column.widened(values)
            others[name] = document(name, column, len(values), known)
            self._array(name, others[name]).write(0, column.stored(values), fresh=True)
        return others
