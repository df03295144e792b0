"""The chunks of one array, each a file that is written whole.

Zarr-Python takes a chunk through an event loop and two threads: some 2 ms for a chunk of any size,
which for a run's dozen variables is a step of a small model. The same bytes are made here in place;
plain xarray reads them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hooks import atomic
from hooks.codecs import codecs
from hooks.errors import RunError


class Chunks:
    """An array on disk by its folder and metadata document, which may grow meanwhile."""

    def __init__(self, folder: Path, document: Mapping[str, Any]) -> None:
        kind = document["data_type"]
        self.dtype = np.dtype(object if kind == "string" else kind)
        self._folder, self._document = folder, document
        self._chunk = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
        self._codecs = codecs(self.dtype, document["codecs"])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._document["shape"])

    @property
    def dimensions(self) -> tuple[str, ...]:
        return tuple(self._document["dimension_names"])

    def write(self, start: int, values: np.ndarray) -> None:
        """Write rows from `start` on; what else their chunks hold stays."""
        height = self._chunk[0]
        for row in range(start // height, -(-(start + len(values)) // height)):
            low = row * height
            rows = values[max(low - start, 0) : low + height - start]
            for rest in np.ndindex(self._grid[1:]):
                part = rows[(slice(None), *self._inside((row, *rest))[1:])]
                self._write_chunk((row, *rest), part, max(start - low, 0))

    def read(self) -> np.ndarray:
        """The whole array; a chunk that is missing is the fill value."""
        whole = self._filled(self.shape)
        for place in np.ndindex(self._grid):
            chunk = self._read_chunk(place)
            if chunk is not None:
                inside = whole[self._inside(place)]
                inside[...] = chunk[tuple(slice(n) for n in inside.shape)]
        return whole

    def has(self, index: int) -> bool:
        """Whether every file that holds the row is there, and not empty."""
        row = index // self._chunk[0]
        paths = (self._path((row, *rest)) for rest in np.ndindex(self._grid[1:]))
        return all(path.exists() and path.stat().st_size for path in paths)

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
        return self._folder.joinpath("c", *map(str, place))

    def _write_chunk(self, place: tuple[int, ...], part: np.ndarray, offset: int) -> None:
        data: Any = part
        if part.shape != self._chunk:  # a chunk at an end is stored whole
            old = self._read_chunk(place)
            data = self._filled(self._chunk) if old is None else old
            data[(slice(offset, offset + len(part)), *map(slice, part.shape[1:]))] = part
        for codec in self._codecs:
            data = codec.encode(data)
        atomic.put(self._path(place), data)

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
