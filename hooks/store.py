"""The run on disk: created whole, filled by samples in chunks of their own, `done` last.

A run is one Zarr group of arrays with named dimensions, so that plain `xarray.open_zarr(path)` shows
everything. Files are replaced by renames, and a new run is built under another name first, so that a
kill at any instant leaves either no run or a run whose `done` is true exactly for complete samples.
Several processes may write one run: what changes it as a whole is done under its lock.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks import atomic
from stepscope.hooks.blank import make_blank
from stepscope.hooks.chunks import Chunks
from stepscope.hooks.contents import Contents
from stepscope.hooks.documents import FILE, MEASURED, SCRATCH, Documents
from stepscope.hooks.errors import RunError, RunExistsError
from stepscope.hooks.labels import KNOWN, Label, check_labels
from stepscope.hooks.layout import Layout
from stepscope.hooks.lock import Lock, alone
from stepscope.hooks.paths import run_path
from stepscope.hooks.vocabulary import GROWABLE, READABLE, SCHEMA_VERSION, STEP_COORDINATES
from stepscope.hooks.whole import Whole


class Run:
    """A Zarr run on disk that samples are written into, by this process and by others.

    Built by `Run.create`, `Run.open` or `Run.at`. What it says of the run's size and labels is as of its
    last `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: dict[str, np.ndarray] = {}
        self._held = Contents(path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        layout: Layout,
        labels: Sequence[Label],
        attributes: Mapping[str, Any],
    ) -> "Run":
        """A new run with a place for every label, none of them done.

        labels: of each sample, its coordinates: see `hooks.labels`. attributes: provenance, JSON values.
        Raises RunExistsError if something already stands at `path`, also if another process has just
        put it there, RunError for a label that cannot be stored, and UnsupportedPathError.
        """
        path = run_path(path)
        if path.exists():
            raise RunExistsError(f"{path} already exists")
        taken = {*layout.variables, *layout.coordinates}
        check_labels(labels, taken=taken - KNOWN.keys(), where=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.sweep(path.parent, path.name)
        partial = atomic.partial(path.parent, path.name)
        try:
            make_blank(partial, layout, labels, attributes)
            _rename(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run at `path`, to be added to or continued.

        Raises RunError if there is none, if its schema version is not in `GROWABLE`, or if a coordinate is
        damaged: Zarr would read a lost one as the fill value. UnsupportedPathError as `run_path`.
        """
        path = run_path(path)
        if not (path / FILE).exists():
            raise RunError(f"{path} is not a run: it has no {FILE}")
        version = Documents(path).attributes.get("schema_version")
        if version not in GROWABLE:
            old = f"{path} has schema version {version}; this stepscope writes {SCHEMA_VERSION}"
            readable = (
                ", and reads it: it can be measured, but not added to. Record into another run"
            )
            raise RunError(old + (readable if version in READABLE else ""))
        run = cls(path)
        atomic.sweep(path.parent, path.name)
        atomic.sweep(path / SCRATCH)
        run._check_undamaged()
        return run

    @classmethod
    def at(cls, path: str | Path, layout: Layout, attributes: Mapping[str, Any]) -> "Run":
        """The run at `path`; a new one without samples if there is none.

        Of several processes that ask at once, one makes it. Raises as `create` and `open` do.
        """
        if not run_path(path).exists():
            try:
                return cls.create(path, layout, [], attributes)
            except RunExistsError:  # made meanwhile
                pass
        return cls.open(path)

    @property
    def attributes(self) -> dict[str, Any]:
        """The run's provenance as it was given to `create`, and the schema version."""
        return self._held.documents.attributes

    def annotate(self, **attributes: Any) -> None:
        """Replace attributes of the run, visible at once to readers."""
        with self._held.alone():
            self._held.documents.annotate(**attributes)

    def has(self, *names: str) -> bool:
        """Whether there are arrays of all these names."""
        return self._held.arrays.keys() >= set(names)

    def check_present(self) -> None:
        """Raise RunError if the run is there no more."""
        self._held.check_present()

    @property
    def done(self) -> np.ndarray:
        """Which samples are complete, (sample,) bool: marked so, and none of their files is lost.

        A chunk without a file is the fill value to Zarr and xarray, NaN or 0 (Zarr-Python 3.1 has no
        setting that refuses it), so it is looked for.
        """
        done = self.read("done")
        marked = np.flatnonzero(done)
        for name in self._held.recorded if marked.size else ():
            done[marked] &= self._held.arrays[name].present(marked)
        return done

    def is_done(self, sample: int) -> bool:
        """Whether one sample is complete by now, whoever made it."""
        whole = all(self._held.arrays[name].present([sample])[0] for name in self._held.recorded)
        return whole and self._marked(sample)

    def _marked(self, sample: int) -> bool:
        return bool(self._held.arrays["done"].row(sample)[0])

    def read(self, name: str) -> np.ndarray:
        """A whole variable. Analysis reads with xarray; this is for those who hold the run open."""
        return self._held.arrays[name].read()

    def lock(self, name: str) -> Lock:
        """A lock of this run, by a name of one's own: of processes that write it, one holds it."""
        return Lock(self._held.scratch / f".{name}.lock")

    def write(self, sample: int, values: Mapping[str, np.ndarray | Whole]) -> None:
        """Write every variable of one sample, then mark it done; meanwhile it is not.

        Raises RunError as `check_same_shapes` does.
        """
        self.check_same_shapes(values)
        if self._marked(sample):  # made again: half of it would be old
            self._held.arrays["done"].write(sample, np.array([False]))
        for name, value in values.items():
            _put(self._held.arrays[name], sample, value)
        self._held.arrays["done"].write(sample, np.array([True]))

    def check_same_shapes(self, values: Mapping[str, np.ndarray | Whole]) -> None:
        """Raise RunError if a sample's variable is missing, unknown, or of another shape than the run's."""
        held, made = self._held.recorded, set(values)
        if made != held:
            raise RunError(
                f"{self.path} holds other variables than this call made: missing "
                f"{sorted(held - made)}, new {sorted(made - held)}"
            )
        for name, value in values.items():
            shape = self._held.arrays[name].shape[1:]
            if value.shape != shape:
                raise RunError(f"{name} is {value.shape} here and {shape} in {self.path}")
            if isinstance(value, Whole):
                self.check_precision(name, value.kind)

    def check_precision(self, name: str, kind: str) -> None:
        """Raise RunError for a whole tensor whose numbers the run cannot hold as they are."""
        array = self._held.arrays.get(name)
        if array is not None and not array.holds(kind):
            raise RunError(
                f"{name} is {kind} here and {array.kind} in {self.path}. Record into another run"
            )

    def check_image(self, image: bool) -> None:
        """Raise RunError where a call makes images and the run has none, or the other way round."""
        if image != ("image" in self._held.arrays):
            has, makes = ("no image", "one") if image else ("an image of each sample", "none")
            raise RunError(
                f"{self.path} has {has}, and this call makes {makes}. Record into another run"
            )

    def check_ends(self, ends: Mapping[str, tuple[int, ...]]) -> None:
        """Raise RunError for variables whose last axes are of another size in the run."""
        for name, end in ends.items():
            if name not in self._held.arrays:
                continue
            array = self._held.arrays[name]
            theirs = array.shape[-len(end) :]
            if theirs != end:
                axes = ", ".join(array.dimensions[-len(end) :])
                raise RunError(
                    f"{name} ({axes}) is {end} here and {theirs} in {self.path}. Record into another run"
                )

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Raise RunError for a label that the run cannot take: a name that it has for another thing, a
        value of another type than its column's, or what is no value of JSON."""
        check_labels(labels, self._held.columns, self._held.taken, str(self.path))

    def write_steps(self, values: Mapping[str, np.ndarray]) -> None:
        """Write the variables that belong to steps alone: sigma and timestep, (step,) each.

        Raises RunError if the run has other values already.
        """
        if all(np.array_equal(self._steps.get(name, ()), value) for name, value in values.items()):
            return
        with self._held.alone():
            for name, value in values.items():
                old = self.read(name)
                if np.isnan(old).all():
                    self._held.arrays[name].write(0, value)
                elif not np.array_equal(old, value):
                    raise RunError(f"{self.path} was recorded on another schedule: {name} differs")
                self._steps[name] = value

    def _check_undamaged(self) -> None:
        written = bool(self.read("done").any())
        for name in set(self._held.arrays) - self._held.recorded - {"done"}:
            whole = self._held.arrays[name].whole()
            if (written or name not in STEP_COORDINATES) and not whole:
                raise RunError(
                    f"{self.path} is damaged: {name} has lost a file. Remove it and record it again"
                )

    def append(
        self, labels: Sequence[Label], samples: Sequence[Mapping[str, np.ndarray | Whole]]
    ) -> None:
        """Add the complete samples of one call at the end, each with its label and every variable.

        `call` of each is the index of the first of them. They are written past the end and the run grows
        last, in one rename: a process killed before it leaves the run of before. Raises RunError as
        `check_same_shapes` and `check_labels` do, and then nothing was written.
        """
        if len(labels) != len(samples):
            raise RunError(f"{len(labels)} labels for {len(samples)} samples")
        if not samples:
            return
        with self._held.alone():
            for values in samples:
                self.check_same_shapes(values)
            self.check_labels(labels)
            old = self._held.size
            for sample, values in enumerate(samples, old):
                for name, value in values.items():
                    _put(self._held.arrays[name], sample, value)
            self._held.grow([{**label, "call": old} for label in labels])

    def extend(self, labels: Sequence[Label], attributes: Mapping[str, Any], *, size: int) -> bool:
        """Add places for further samples, none of them done, and replace attributes, seen at once.

        size: samples that the run is thought to have. False, and nothing is changed, if another process
        has made it larger meanwhile. Raises RunError as `check_labels` does.
        """
        with self._held.alone():
            if self._held.size != size:
                return False
            self.check_labels(labels)
            self._held.grow(labels, attributes, done=False)
            return True

    @property
    def size(self) -> int:
        """How many samples the run has places for."""
        return self._held.size


def _put(array: Chunks, sample: int, value: np.ndarray | Whole) -> None:
    if isinstance(value, Whole):
        array.take(sample, value)
    else:
        array.write(sample, value[None])


def publish_measured(path: Path) -> None:
    """Make the group of what was measured of a run known to whoever reads the run, of any schema.

    Zarr and xarray look for groups in the run's consolidated metadata alone.
    """
    if not Documents(path).knows(MEASURED):
        with alone(path / SCRATCH / ".lock", str(path)):
            Documents(path).adopt(MEASURED)


def bytes_on_disk(path: str | Path) -> int:
    """Bytes of all files of a run."""
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())


def _rename(partial: Path, path: Path) -> None:
    """Raises RunExistsError if something stands there by now: no folder replaces one with content."""
    try:
        os.rename(partial, path)
    except OSError as error:
        if path.exists():
            raise RunExistsError(f"{path} already exists") from error
        raise
