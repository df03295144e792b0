"""A blank run: every array as the layout declares it, with a place for every sample and none made.

The only module that knows Zarr-Python. Chunks carry a CRC-32C checksum: a flipped byte is an error
when read.
"""

import warnings
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, ZstdCodec

from hooks.layout import Layout
from hooks.vocabulary import AXES, SAMPLE_COORDINATES, SCHEMA_VERSION, STEP_COORDINATES, Variable

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


def make_blank(
    path: Path, layout: Layout, labels: Sequence[Label], attributes: Mapping[str, Any]
) -> None:
    """Make the run's folder, with the values of its coordinates."""
    with zarr.config.set(_KEEP_EMPTY):
        group = zarr.create_group(path, zarr_format=3, attributes=_attributes(layout, attributes))
        for name, (declared, shape) in layout.variables.items():
            _create(group, name, declared, shape, len(labels))
        for name, declared in SAMPLE_COORDINATES.items():
            array = _create(group, name, declared, (), len(labels))
            if labels:
                array[:] = column(labels, name)
        for name, (axis, values) in layout.coordinates.items():
            _create_coordinate(group, name, axis, values)
        _create_coordinate(group, "sample", "sample", np.arange(len(labels)))
    _consolidate(path)


def column(labels: Sequence[Label], name: str) -> np.ndarray:
    """One sample coordinate of every label; an empty text or -1 where it is not known."""
    text = SAMPLE_COORDINATES[name].dtype == "str"
    values = [label.get(name, "" if text else -1) for label in labels]
    return np.array(values, dtype=object if text else SAMPLE_COORDINATES[name].dtype)


def _attributes(layout: Layout, attributes: Mapping[str, Any]) -> dict[str, Any]:
    coordinates = [*SAMPLE_COORDINATES, *STEP_COORDINATES]
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


def _consolidate(path: Path) -> None:
    with warnings.catch_warnings():
        # xarray reads consolidated metadata of format 3, as Zarr-Python writes it; the format's
        # specification does not have it yet.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)
