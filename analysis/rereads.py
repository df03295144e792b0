"""The readings that `stepscope reread` writes beside a record, as variables of the run."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from stepscope.hooks.attributes import unpacked
from stepscope.hooks.chunks import Chunks
from stepscope.hooks.documents import FILE
from stepscope.hooks.errors import RunError
from stepscope.probes.readings import GROUP, READING_VARIABLES
from stepscope.probes.usage import says

READING = {name: reading for reading, names in READING_VARIABLES.items() for name in names}
"""The reading that makes each variable."""
ATTRIBUTES = ("samples", "others", "check")
"""Attributes of a reading's group that are copied to its variables."""


def containing_group(path: Path, name: str) -> Path:
    """The folder of the group that holds a variable: the run itself, or one of its readings."""
    return path / GROUP / READING[name] if name in READING else path


def join_readings(path: Path, run: xr.Dataset) -> xr.Dataset:
    """The run with the variables of every complete reading; values stay on disk.

    A reading is complete where every requested sample is done; other samples are NaN. Raises RunError
    where a file of a requested sample is missing.
    """
    for reading, names in READING_VARIABLES.items():
        folder = path / GROUP / reading
        if not (folder / FILE).is_file():
            continue
        group = xr.open_zarr(folder, chunks=None, consolidated=True)
        about = unpacked(group.attrs)
        requested = about.get("samples")
        if not requested:  # killed while the group was created
            continue
        complete = group["done"].values[requested].all()
        if not complete or group.sizes["sample"] != run.sizes["sample"]:
            continue
        lost = [name for name in names for _ in missing_files(folder / name, requested)]
        if lost:
            raise RunError(
                f"{path} is damaged: {lost[0]} of its reading lacks {len(lost)} of its files. Remove "
                f"{folder}, then run {reread_command(path, reading)}"
            )
        attrs = {key: about[key] for key in ATTRIBUTES if key in about}
        for name in names:
            variable = group[name].variable
            variable.attrs.update(attrs)
            run[name] = variable
        axes = {n: group[n] for n in ("off_from", "off_sigma") if n in group.coords}
        run = run.assign_coords({n: (values.dims, values.values) for n, values in axes.items()})
    return run


def missing_files(folder: Path, samples: list[int]) -> Iterator[int]:
    """The samples, among these, without a file in an array's folder."""
    array = Chunks(folder, json.loads((folder / FILE).read_bytes()))
    present = array.present(samples)
    yield from (sample for sample, here in zip(samples, present, strict=True) if not here)


def reread_command(path: Path, reading: str) -> str:
    """The command that makes a reading of a run."""
    return f"{says('reread')} {path} readings=[{reading}]"


def was_reread(values: np.ndarray) -> np.ndarray:
    """Which samples (sample,) of a reading's variable (sample, ...) were read again: those without NaN."""
    return np.array([np.isfinite(one).all() for one in values], dtype=bool)
