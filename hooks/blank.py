"""A blank run: every array as the layout declares it, with a place for every sample and none made.

The only module that knows Zarr-Python. Chunks carry a CRC-32C checksum: a flipped byte is an error
when read.
"""

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, ZstdCodec

from stepscope.hooks.attributes import packed
from stepscope.hooks.labels import KNOWN, Column, Label, columns_of, values_of
from stepscope.hooks.layout import Layout
from stepscope.hooks.vocabulary import (
    AXES,
    BLOCK_COORDINATES,
    FOUND_COORDINATES,
    INJECTION_COORDINATES,
    SAMPLE_COORDINATES,
    SCHEMA_VERSION,
    STEP_COORDINATES,
    Variable,
    described,
)
from stepscope.hooks.whole import FORMAT, NAN

# Chosen by `python -m tests.bench`, which prints bytes and seconds by codec. Text and tiny arrays are
# not worth shuffling.
_NUMBERS = (
    BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.shuffle),
    Crc32cCodec(),
)
_TEXT = (ZstdCodec(level=3), Crc32cCodec())
# A chunk of nothing but NaN is written too, so that a file that was lost can be told from it.
_KEEP_EMPTY = {"array.write_empty_chunks": True}
_FEW = 64  # labels are few and small: at least so many are one chunk
# As Zarr-Python writes them, and xarray reads both; the format's specification does not have them yet.
_UNSPECIFIED = (r"The data type \(FixedLengthUTF32", "Consolidated metadata")
for _message in _UNSPECIFIED:
    warnings.filterwarnings("ignore", message=_message)
_LARGE = 2**27  # bytes of one sample's array past which a chunk is one step: Blosc ends at 2 GiB


def make_blank(
    path: Path, layout: Layout, labels: Sequence[Label], attributes: Mapping[str, Any]
) -> None:
    """Make the run's folder, with the values of its coordinates."""
    columns = KNOWN | columns_of(labels, KNOWN, before=0)
    with zarr.config.set(_KEEP_EMPTY), without_warnings():
        about = _attributes(layout, attributes, list(columns))
        group = zarr.create_group(path, zarr_format=3, attributes=about)
        for name, (declared, shape) in layout.variables.items():
            _create(group, name, declared, shape, len(labels))
        for name, column in columns.items():
            declared, more = _declared(column, name)
            few = max(len(labels), _FEW)
            array = _create(group, name, declared, (), len(labels), chunk=few, more=more)
            if labels:
                array[:] = column.stored(values_of(labels, name))
        for name, (axis, values) in (layout.uprights() | layout.coordinates).items():
            _create_coordinate(group, name, axis, values)
        _create_coordinate(group, "sample", "sample", np.arange(len(labels)))
    _consolidate(path)


_KEYS = [
    {"name": "default", "configuration": {"separator": "/"}},
    {"name": "default", "configuration": {"separator": "."}},
    {"name": "v2", "configuration": {"separator": "."}},
]
"""How chunks are called: c/0, c.0, 0."""


def document(name: str, column: Column, samples: int, run: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata document of a sample coordinate, for a run that stands already.

    Made of those of the run's arrays: Zarr-Python takes as long as some steps of a small model. Where the
    run has an array of that name and another type, whoever has it open still reads its chunks, so this
    one's have other names.
    """
    before = run.get(name)
    keys = _KEYS[_KEYS.index(before["chunk_key_encoding"]) + 1 if before is not None else 0]
    declared, more = _declared(column)
    like = {"str": "prompt", "bool": "done"}.get(column.dtype, "seed")
    return {
        **run[like],
        "shape": [samples],
        "data_type": column.dtype.replace("str", "string"),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(samples, _FEW)]}},
        "chunk_key_encoding": keys,
        "fill_value": {"str": "", "bool": False, "int64": -1}.get(column.dtype, "NaN"),
        "attributes": _about(name, declared) | more,
    }


def columns(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Column]:
    """The sample coordinates of the user's own among a run's arrays."""
    return {
        name: Column(about["attributes"]["label"], about["data_type"].replace("string", "str"))
        for name, about in documents.items()
        if "label" in about["attributes"]
    }


def _attributes(
    layout: Layout, attributes: Mapping[str, Any], samples: Sequence[str]
) -> dict[str, Any]:
    found = [name for name in FOUND_COORDINATES if name in layout.variables]
    coordinates = [*samples, *found, *STEP_COORDINATES]
    coordinates += [name for name, (axis, _) in layout.coordinates.items() if name != axis]
    return {
        "schema_version": SCHEMA_VERSION,
        **packed(attributes),
        "coordinates": " ".join(coordinates),  # CF: xarray makes these coordinates, not variables
    }


def _declared(column: Column, name: str = "") -> tuple[Variable, dict[str, Any]]:
    """A sample coordinate's declaration; what the user's own hold is said by their attribute `label`."""
    if column.known:
        return SAMPLE_COORDINATES[name], {}
    return column.declared(), {"label": column.kind}


def _about(name: str, declared: Variable) -> dict[str, Any]:
    form = {FORMAT: declared.dtype} if declared.dtype != declared.stored else {}
    return declared.unit() | form | described(name, declared.long_name)


def _create(
    group: Any,
    name: str,
    declared: Variable,
    shape: tuple[int, ...],
    samples: int,
    *,
    chunk: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> Any:
    along_sample = declared.dims[0] == "sample"
    kind = {"str": str}.get(declared.dtype, declared.stored)
    none = {"str": "", "bool": False, "uint8": 0, "int64": -1, **NAN}
    fill = none.get(declared.dtype, np.nan)
    if chunk is not None:
        chunks = (chunk,)
    elif not along_sample:
        chunks = shape
    elif declared.whole:
        chunks = (1, 1, 1, *shape[2:])
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
        compressors=_compressors(declared),
        attributes={**_about(name, declared), **(more or {})},
    )


def _compressors(declared: Variable) -> Any:
    if declared.whole:
        return (Crc32cCodec(),)
    return _TEXT if declared.dtype in ("str", "bool") else _NUMBERS


def _create_coordinate(group: Any, name: str, axis: str, values: np.ndarray) -> None:
    """Text is of fixed width: xarray draws no axis of words of any length."""
    text = values.dtype.kind == "U"
    meaning = {**AXES, **BLOCK_COORDINATES, **INJECTION_COORDINATES}.get(
        name, f"{name} of the {axis}"
    )
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=(max(len(values), _FEW),),
        dtype=values.dtype,
        dimension_names=(axis,),
        compressors=_TEXT if text else _NUMBERS,
        attributes=({} if text else {"units": "1"}) | described(name, meaning),
    )
    if len(values):
        array[:] = values


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without Zarr-Python's warnings of fixed-width text and consolidated metadata, whatever the filters.

    In the main thread alone: filters are the process's, so that another thread which changed them for a
    while would lose the main thread's warnings.
    """
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(warnings.catch_warnings())
            for message in _UNSPECIFIED:
                warnings.filterwarnings("ignore", message=message)
        yield


def _consolidate(path: Path) -> None:
    with without_warnings():
        zarr.consolidate_metadata(path)
