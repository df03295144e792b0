"""The chunks of one array, each a file that is written whole.

Zarr-Python takes a chunk through an event loop and two threads: some 2 ms for a chunk of any size,
which for a run's dozen variables is a step of a small model. The same bytes are made here in place;
plain xarray reads them.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stepscope.hooks import atomic
from stepscope.hooks.codecs import Codec, codecs
from stepscope.hooks.errors import RunError
from stepscope.hooks.whole import FORMAT, Whole


class Chunks:
    """An array on disk by its folder and metadata document, which may grow meanwhile.

    scratch: where a chunk lies until it is whole; the array's own folder if None.
    """

    def __init__(
        self, folder: Path, document: Mapping[str, Any], scratch: Path | None = None
    ) -> None:
        self.dtype = _dtype(document["data_type"])
        self._folder, self._document = folder, document
        self._scratch = folder if scratch is None else scratch
        keys = document["chunk_key_encoding"]
        self._prefix, separator = {"default": (("c",), "/"), "v2": ((), ".")}[keys["name"]]
        self._separator = keys.get("configuration", {}).get("separator", separator)
        self._chunk = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])

    @cached_property
    def _codecs(self) -> list[Codec]:
        return codecs(self.dtype, self._document["codecs"])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._document["shape"])

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self._document["dimension_names"])

    def write(self, start: int, values: np.ndarray, *, fresh: bool = False) -> None:
        """Write rows from `start` on; what else their chunks hold stays.

        fresh: nothing of the array is anyone's yet, and what lies there is not even read.
        """
        height = self._chunk[0]
        for row in range(start // height, -(-(start + len(values)) // height)):
            low = row * height
            rows = values[max(low - start, 0) : low + height - start]
            for rest in np.ndindex(self._grid[1:]):
                part = rows[(slice(None), *self._inside((row, *rest))[1:])]
                self._write_chunk((row, *rest), part, max(start - low, 0), fresh=fresh)

    @property
    def kind(self) -> str:
        """The precision of the numbers."""
        return self._document["attributes"].get(FORMAT, str(self.dtype))

    def holds(self, kind: str) -> bool:
        """Whether numbers of a precision can be stored as they are."""
        return self.kind in (kind, "float32")

    def take(self, row: int, whole: Whole) -> None:
        """Make a row of a whole tensor: its files become the chunks, where these are of its form."""
        shape = (1, 1, 1, *whole.shape[2:])
        names = [codec["name"] for codec in self._document["codecs"]]
        if self._chunk != shape or names != ["bytes", "crc32c"] or self.kind != whole.kind:
            self.write(row, whole.values().astype(self.dtype)[None])
            return
        for step, branch in np.ndindex(whole.shape[:2]):
            place = (row, step, branch, 0, 0)
            file = whole.files.get((step, branch))
            if file is None:
                self._write_chunk(place, whole.chunk(step, branch)[None, None, None], 0, fresh=True)
            else:
                path = self._path(place)
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, path)

    def read(self) -> np.ndarray:
        """The whole array; a chunk that is missing is the fill value."""
        whole = self._filled(self.shape)
        for place in np.ndindex(self._grid):
            chunk = self._read_chunk(place)
            if chunk is not None:
                inside = whole[self._inside(place)]
                inside[...] = chunk[tuple(slice(n) for n in inside.shape)]
        return whole

    def row(self, index: int) -> np.ndarray:
        """One row, (1, ...), of an array whose chunks are rows; the fill value where a file is missing."""
        chunk = self._read_chunk((index, *(0,) * (len(self.shape) - 1)))
        return self._filled(self._chunk) if chunk is None else chunk

    def present(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Whether every file that holds the row is there, and not empty: (row,) bool."""
        return np.array([all(map(_holds, self._names(int(row)))) for row in rows], bool)

    def files(self, row: int) -> list[Path]:
        """The files that hold a row and are there."""
        return [Path(name) for name in self._names(row) if os.path.exists(name)]

    def missing(self) -> int:
        """How many of the array's files are not there."""
        rows = range(0, self.shape[0], self._chunk[0])
        return sum(not os.path.exists(name) for row in rows for name in self._names(row))

    def whole(self) -> bool:
        """Whether no chunk is missing. Raises RunError for one that is damaged."""
        return all(self._read_chunk(place) is not None for place in np.ndindex(self._grid))

    @property
    def _grid(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self._chunk, strict=True))

    def _inside(self, place: tuple[int, ...]) -> tuple[slice, ...]:
        """The part of the array that a chunk covers."""
        return tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, self._chunk, strict=True))

    def _filled(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self._document["fill_value"], self.dtype)

    def _path(self, place: tuple[int, ...]) -> Path:
        return self._folder / self._separator.join([*self._prefix, *map(str, place)])

    def _names(self, row: int) -> list[str]:
        """The names of a row's files, put together as texts: a run has many, and `Path` takes long."""
        first = (*self._prefix, str(row // self._chunk[0]))
        keys = ([*first, *map(str, rest)] for rest in np.ndindex(self._grid[1:]))
        return [f"{self._folder}{os.sep}{self._separator.join(key)}" for key in keys]

    def _write_chunk(
        self, place: tuple[int, ...], part: np.ndarray, offset: int, *, fresh: bool
    ) -> None:
        data: Any = part
        if part.shape != self._chunk:  # a chunk at an end is stored whole
            old = None if fresh else self._read_chunk(place)
            data = self._filled(self._chunk) if old is None else old
            data[(slice(offset, offset + len(part)), *map(slice, part.shape[1:]))] = part
        for codec in self._codecs:
            data = codec.encode(data)
        atomic.put(self._path(place), data, self._scratch)

    def _read_chunk(self, place: tuple[int, ...]) -> np.ndarray | None:
        path = self._path(place)
        if not path.exists():
            return None
        try:
            data: Any = path.read_bytes()
            for codec in reversed(self._codecs):
                data = codec.decode(data)
            return data.reshape(self._chunk).astype(self.dtype)
        except (ValueError, RuntimeError) as error:
            raise RunError(f"{path} is damaged: {error}") from error


def _dtype(kind: Any) -> np.dtype:
    """The numpy type of a data type in a metadata document: its name, or its name and configuration."""
    if isinstance(kind, Mapping):
        if kind["name"] != "fixed_length_utf32":
            raise RunError(f"no data type {kind['name']!r} is read here")
        return np.dtype(f"<U{kind['configuration']['length_bytes'] // 4}")
    return np.dtype(object if kind == "string" else kind)


def _holds(file: str) -> bool:
    """Whether there is such a file with anything in it."""
    try:
        return os.stat(file).st_size > 0
    except OSError:
        return False
