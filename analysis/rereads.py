"""What `python -m probes.reread` put beside a record, as part of the run that analysis reads."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from hooks.chunks import Chunks
from hooks.documents import FILE
from hooks.errors import RunError
from probes.rereading import GROUP, OF

READING = {name: reading for reading, names in OF.items() for name in names}
"""Variables, each with the reading that makes it."""
ATTRIBUTES = ("samples", "others", "check")
"""Of a reading's group, carried over to its variables."""


def home(path: Path, name: str) -> Path:
    """The group in which a variable of a run lies: the run itself, or one of its readings."""
    return path / GROUP / READING[name] if name in READING else path


def joined(path: Path, run: xr.Dataset) -> xr.Dataset:
    """The run with the variables of every reading that is whole; nothing is read yet.

    A reading is whole where every sample that was asked for is done; of the others, which were not,
    the variables are NaN. Raises RunError where a file of a done sample is lost.
    """
    for reading, names in OF.items():
        folder = path / GROUP / reading
        if not (folder / FILE).is_file():
            continue
        found = xr.open_zarr(folder, chunks=None, consolidated=True)
        asked = found.attrs.get("samples")
        if not asked:  # killed as it was made
            continue
        if not found["done"].values[asked].all() or found.sizes["sample"] != run.sizes["sample"]:
            continue
        lost = [name for name in names for _ in unwritten(folder / name, asked)]
        if lost:
            raise RunError(
                f"{path} is damaged: {lost[0]} of its reading lacks {len(lost)} of its files. Remove "
                f"{folder}, then {making(path, reading)}"
            )
        about = {key: found.attrs[key] for key in ATTRIBUTES if key in found.attrs}
        for name in names:
            variable = found[name].variable
            variable.attrs.update(about)
            run[name] = variable
        axes = {n: found[n] for n in ("off_from", "off_sigma") if n in found.coords}
        run = run.assign_coords({n: (values.dims, values.values) for n, values in axes.items()})
    return run


def unwritten(folder: Path, samples: list[int]) -> Iterator[int]:
    """Which of these samples have no file in an array's folder."""
    array = Chunks(folder, json.loads((folder / FILE).read_bytes()))
    there = array.present(samples)
    yield from (sample for sample, here in zip(samples, there, strict=True) if not here)


def making(path: Path, reading: str) -> str:
    """The command that makes a reading of a run."""
    return f"python -m probes.reread runs=[{path}] readings=[{reading}]"


def read_again(values: np.ndarray) -> np.ndarray:
    """Which samples (sample,) of a reading's variable (sample, ...) were asked for: those not NaN."""
    return np.array([np.isfinite(one).all() for one in values], dtype=bool)
