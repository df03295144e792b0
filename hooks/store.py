"""The Zarr run: created whole, filled one chunk per variable and sample, `done` last.

The only module that knows Zarr. A run is one group of arrays with named dimensions, so that plain
`xarray.open_zarr(path)` shows everything. Chunks carry a CRC-32C checksum: a flipped byte is an
error when read. Files are replaced atomically (Zarr's LocalStore writes beside and renames), and a
new run is built under another name first, so that a kill at any instant leaves either no run or a
run whose `done` is true exactly for complete samples.
"""

import glob
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, ZstdCodec

from hooks.errors import RunError
from hooks.layout import Layout
from hooks.vocabulary import AXES, SAMPLE_COORDINATES, SCHEMA_VERSION, Variable

Label = Mapping[str, Any]
"""Values of the sample coordinates of one sample: face, prompt, seed, batch_size."""

# Chosen by `python -m tests.bench`, which prints bytes and seconds by codec. Text and tiny arrays are
# not worth shuffling.
_NUMBERS = (
    BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle),
    Crc32cCodec(),
)
_TEXT = (ZstdCodec(level=3), Crc32cCodec())
# A chunk of nothing but NaN is written too, so that a file that was lost can be told from it.
_KEEP_EMPTY = {"array.write_empty_chunks": True}
_LARGE = 2**27  # bytes of one sample's array past which a chunk is one step: Blosc ends at 2 GiB


class Run:
    """A Zarr run on disk that samples are written into.

    Built by `Run.create` or `Run.open`. Not safe for two processes at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._steps: dict[str, np.ndarray] = {}
        with zarr.config.set(_KEEP_EMPTY):
            self._group = zarr.open_group(path, mode="r+")
            self._arrays = dict(self._group.arrays())

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
        with zarr.config.set(_KEEP_EMPTY):
            _fill(partial, layout, labels, attributes)
        _consolidate(partial)
        partial.rename(path)
        return cls(path)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run at `path`. Raises RunError if there is none, or if its schema is another version."""
        path = Path(path)
        if not (path / "zarr.json").exists():
            raise RunError(f"{path} is not a run: it has no zarr.json")
        run = cls(path)
        version = run.attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunError(
                f"{path} has schema version {version}; this stepscope writes {SCHEMA_VERSION}"
            )
        return run

    @property
    def attributes(self) -> dict[str, Any]:
        """The run's provenance as it was given to `create`, and the schema version."""
        return dict(self._group.attrs)

    def annotate(self, **attributes: Any) -> None:
        """Replace attributes of the run, visible at once to readers."""
        self._group.attrs.update(attributes)
        _consolidate(self.path)

    @property
    def done(self) -> np.ndarray:
        """Which samples are complete: (sample,) bool."""
        return np.asarray(self._arrays["done"][:], dtype=bool)

    def read(self, name: str) -> np.ndarray:
        """A whole variable. Analysis reads with xarray; this is for those who hold the run open."""
        return np.asarray(self._arrays[name][:])

    def write(self, sample: int, values: Mapping[str, np.ndarray]) -> None:
        """Write every variable of one sample, then mark it done.

        Raises RunError as `refuse_other` does.
        """
        self.refuse_other(values)
        for name, value in values.items():
            self._arrays[name][sample] = value
        self._arrays["done"][sample] = True

    def refuse_other(self, values: Mapping[str, np.ndarray]) -> None:
        """Raise RunError if a sample's variable is missing, unknown, or of another shape than the run's."""
        wanted = {n for n, a in self._arrays.items() if _is_recorded(n, a)}
        if set(values) != wanted:
            raise RunError(
                f"{self.path} holds other variables than this call made: "
                f"missing {sorted(wanted - set(values))}, new {sorted(set(values) - wanted)}"
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
                self._arrays[name][:] = value
            elif not np.array_equal(old, value):
                raise RunError(f"{self.path} was recorded on another schedule: {name} differs")
            self._steps[name] = value

    def extend(self, labels: Sequence[Label]) -> list[int]:
        """Places for more samples at the end; their indices.

        Readers see the new size only when the consolidated metadata is replaced, in one rename.
        """
        old = self._arrays["done"].shape[0]
        size = old + len(labels)
        growing = [name for name, array in self._arrays.items() if _axes(array)[0] == "sample"]
        for name in growing:
            with _rewritten(self.path / name) as document:
                document["shape"][0] = size
            self._arrays[name] = _resized(self._arrays[name], size)
        for name, declared in SAMPLE_COORDINATES.items():
            self._arrays[name][old:] = _column(labels, name, declared)
        self._arrays["sample"][old:] = np.arange(old, size)
        with _rewritten(self.path) as document:
            for name in growing:
                document["consolidated_metadata"]["metadata"][name]["shape"][0] = size
        return list(range(old, size))


@contextmanager
def _rewritten(node: Path) -> Iterator[dict[str, Any]]:
    """The metadata document of an array or group, as the Zarr 3 specification has it, to be changed.

    Replaced in one rename. Zarr-Python's own resize and consolidation take some hundred round trips
    to its event loop for a run: longer than a step of a small model.
    """
    path, beside = node / "zarr.json", node / ".zarr.json.partial"
    document = json.loads(path.read_text())
    yield document
    beside.write_text(json.dumps(document))
    beside.rename(path)


def _resized(array: zarr.Array, size: int) -> zarr.Array:
    """A handle of the array that knows its new number of samples."""
    old = array.async_array
    grown = old.metadata.update_shape((size, *array.shape[1:]))
    return zarr.Array(zarr.AsyncArray(grown, old.store_path, old.config))


def _fill(
    path: Path, layout: Layout, labels: Sequence[Label], attributes: Mapping[str, Any]
) -> None:
    """Every array of a new run, with the values of its coordinates."""
    group = zarr.create_group(path, zarr_format=3, attributes=_attributes(layout, attributes))
    for name, (declared, shape) in layout.variables.items():
        _create(group, name, declared, shape, len(labels))
    for name, declared in SAMPLE_COORDINATES.items():
        array = _create(group, name, declared, (), len(labels))
        if labels:
            array[:] = _column(labels, name, declared)
    for name, (axis, values) in layout.coordinates.items():
        _create_coordinate(group, name, axis, values)
    _create_coordinate(group, "sample", "sample", np.arange(len(labels)))


def _axes(array: Any) -> tuple[str, ...]:
    return array.metadata.dimension_names


def _is_recorded(name: str, array: Any) -> bool:
    return _axes(array)[0] == "sample" and name not in (*SAMPLE_COORDINATES, "sample", "done")


def _attributes(layout: Layout, attributes: Mapping[str, Any]) -> dict[str, Any]:
    coordinates = [*SAMPLE_COORDINATES, "sigma", "timestep"]
    coordinates += [name for name, (axis, _) in layout.coordinates.items() if name != axis]
    return {
        "schema_version": SCHEMA_VERSION,
        **attributes,
        "coordinates": " ".join(coordinates),  # CF: xarray makes these coordinates, not variables
    }


def _create(group: Any, name: str, declared: Variable, shape: tuple[int, ...], samples: int) -> Any:
    along_sample = declared.dims[0] == "sample"
    kind = {"str": str}.get(declared.dtype, declared.dtype)
    fill = {"str": "", "bool": False, "uint8": 0, "int64": -1}.get(declared.dtype, np.nan)
    if name in SAMPLE_COORDINATES:
        chunks = (max(samples, 64),)  # labels are few and small: one chunk
    elif not along_sample:
        chunks = shape
    elif prod(shape) * np.dtype(declared.dtype).itemsize > _LARGE:
        chunks = (1, 1, *shape[1:])
    else:
        chunks = (1, *shape)
    return group.create_array(
        name,
        shape=(samples, *shape) if along_sample else shape,
        chunks=tuple(max(c, 1) for c in chunks),
        dtype=kind,
        fill_value=fill,
        dimension_names=declared.dims,
        compressors=_TEXT if declared.dtype in ("str", "bool") else _NUMBERS,
        attributes={"units": declared.units, "long_name": declared.long_name},
    )


def _create_coordinate(group: Any, name: str, axis: str, values: np.ndarray) -> None:
    text = values.dtype.kind in "UT"
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=(max(len(values), 64),),
        dtype=str if text else values.dtype,
        dimension_names=(axis,),
        compressors=_TEXT if text else _NUMBERS,
        attributes={"units": "1", "long_name": AXES.get(name, f"{name} of the {axis}")},
    )
    if len(values):
        array[:] = values.astype(object) if text else values


def _column(labels: Sequence[Label], name: str, declared: Variable) -> np.ndarray:
    missing: Any = "" if declared.dtype == "str" else -1
    values = [label.get(name, missing) for label in labels]
    return np.array(values, dtype=object if declared.dtype == "str" else declared.dtype)


def _consolidate(path: Path) -> None:
    with warnings.catch_warnings():
        # xarray reads consolidated metadata of format 3, as Zarr-Python writes it; the format's
        # specification does not have it yet.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)


def bytes_on_disk(path: str | Path) -> int:
    """Bytes of all files of a run."""
    return sum(f.stat().st_size for f in Path(path).rglob("*") if f.is_file())
