"""The run's `analysis` group: places for each metric's variables, and marks of what was measured.

It repeats the run's face, prompt, seed and sigma, so that it can be read without the run.
"""

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.axes import MEANINGS
from stepscope.analysis.metrics import METRICS, Metric
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.runs import GROUP, MARK, measurements
from stepscope.hooks.blank import without_warnings
from stepscope.hooks.provenance import versions
from stepscope.hooks.store import publish_measured
from stepscope.hooks.vocabulary import UPRIGHT, described

REPEATED = ("face", "prompt", "seed", "sigma")
WHOLE = 2**16  # bytes of one sample's values from which each sample is a chunk
JUDGES = ("insightface", "onnxruntime", "opencv-python-headless", "lpips")


def laid_out(
    group: xr.Dataset,
    metric: Metric,
    quantities: Mapping[str, Quantity],
    coordinates: Mapping[str, tuple[str, Any]],
    settings: Mapping[str, Any],
) -> bool:
    """Whether the group has the metric's variables, by these settings; but for those made of others."""
    own = [name for name, q in quantities.items() if q.true_where is None]
    if MARK + metric.name not in group or any(name not in group for name in own):
        return False
    return all(settings_of(group[name]) == settings for name in own) and all(
        name in group and _agree(name, group[name].values, values)
        for name, (_, values) in coordinates.items()
    )


def settings_of(measured: xr.DataArray) -> Any:
    """The settings that a variable was measured with, None for one that says none."""
    text = measured.attrs.get("provenance", "{}")
    about = json.loads(text) if isinstance(text, str) else text  # before schema version 3 no text
    return about.get("settings")


def _agree(name: str, old: np.ndarray, new: Any) -> bool:
    """Whether a coordinate in the group is that of now."""
    if name in UPRIGHT:  # before schema version 3 it ascended
        return np.array_equal(np.abs(old), np.abs(new))
    return np.array_equal(old, np.asarray(new))


def discard(
    path: Path, group: xr.Dataset, metric: Metric, coordinates: Mapping[str, tuple[str, Any]]
) -> None:
    """Remove the metric's variables, and all that lie on axes which now have other values."""
    changed = {
        axis
        for name, (axis, values) in coordinates.items()
        if name in group and not _agree(name, group[name].values, values)
    }
    of = {str(n): v.attrs.get("metric") for n, v in group.variables.items()}
    gone = {of[str(n)] for n, v in group.variables.items() if changed & set(v.dims)} | {metric.name}
    stale = [
        path / GROUP / name
        for name, owner in sorted(of.items(), key=lambda item: not item[0].startswith(MARK))
        if (owner in gone and owner is not None) or changed & set(group[name].dims)
    ]
    for folder in stale:
        (folder / "zarr.json").unlink()
    publish_measured(path)  # before the values go, which whoever knows of them would read as none
    for folder in stale:
        shutil.rmtree(folder)


def create(
    path: Path,
    run: xr.Dataset,
    metric: Metric,
    coordinates: Mapping[str, tuple[str, Any]],
    settings: Mapping[str, Any],
) -> None:
    """Places for the metric's variables, none of them measured."""
    sizes = {**run.sizes} | {a: len(v) for a, v in coordinates.values()}
    provenance = json.dumps({"settings": settings, "versions": judges()})
    variables, chunks = {}, {}
    for name, q in metric.quantities(run).items():
        shape = tuple(sizes[axis] for axis in ("sample", *q.dims))
        fill = np.nan if q.dtype.startswith("float") else 0
        # A view of one number: the whole variable is never in memory.
        values = np.broadcast_to(np.array(fill, q.dtype), shape)
        variables[name] = (("sample", *q.dims), values, _about(name, q, metric, provenance))
        large = np.prod(shape[1:]) * np.dtype(q.dtype).itemsize >= WHOLE
        chunks[name] = {"chunks": (1 if large else shape[0], *shape[1:])}
    mark = {
        "units": "1",
        **described(
            MARK + metric.name, f"which inputs {metric.name} was measured of; 0 where it was not"
        ),
        "metric": metric.name,
    }
    marks = np.zeros(sizes["sample"], np.int64)
    variables[MARK + metric.name] = (("sample",), marks, mark)
    before = measurements(path)
    axes = {
        name: before[name].variable  # in the type that it has
        if name in before
        else _axis(name, axis, values)
        for name, (axis, values) in coordinates.items()
    }
    _add(path, run, xr.Dataset(variables, axes), chunks)


def _axis(name: str, axis: str, values: Any) -> tuple[str, np.ndarray, dict[str, str]]:
    array = np.asarray(values)
    unit = {} if array.dtype.kind == "U" else {"units": "1"}
    return axis, array, unit | described(name, MEANINGS[name])


def _about(name: str, quantity: Quantity, metric: Metric, provenance: Any) -> dict[str, Any]:
    return {
        "units": quantity.units,
        **described(name, quantity.long_name),
        "direction": quantity.direction,
        **(quantity.more or {}),
        "metric": metric.name,
        "provenance": provenance,
    }


def truths(
    quantities: Mapping[str, Quantity], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The truth values of a metric, by the variables that they are made of."""
    return {name: values[of] == value for name, (of, value) in _sources(quantities).items()}


def _sources(quantities: Mapping[str, Quantity]) -> dict[str, tuple[str, int]]:
    made = {name: quantity.true_where for name, quantity in quantities.items()}
    return {name: source for name, source in made.items() if source is not None}


def complete(path: Path, run: xr.Dataset, group: xr.Dataset, metric: Metric) -> None:
    """Add the truth values that an older version did not make of what it measured."""
    quantities, made = metric.quantities(run), {}
    held = {str(name): values.values for name, values in group.data_vars.items()}
    values = truths(quantities, held)
    for name, (of, _) in _sources(quantities).items():
        about = _about(name, quantities[name], metric, group[of].attrs["provenance"])
        made[name] = group[of].dims, values[name], about
    _add(path, run, xr.Dataset(made), {})


def repeat(path: Path, run: xr.Dataset) -> None:
    """Let the group repeat the run's coordinates where it does not, as one of an older version."""
    group = measurements(path)
    given = repeated(run, group.sizes)
    if group.sizes.get("sample") == run.sizes["sample"] and any(
        name not in group.coords or not group[name].variable.identical(values)
        for name, values in given.items()
    ):
        _add(path, run, xr.Dataset(), {})


def repeated(run: xr.Dataset, sizes: Mapping[Any, int]) -> dict[str, xr.Variable]:
    """The coordinates that the group has of the run's, and of pictures, for axes of these sizes."""
    own = {name: run[name].variable for name in REPEATED if name in run.coords}
    found = {
        name: xr.Variable(values.dims, values.values, values.attrs)
        for name, values in own.items()
        if set(values.dims) <= sizes.keys()
    }
    for axis in UPRIGHT:
        if axis in sizes:
            about = {"units": "1", **described(axis, MEANINGS[axis])}
            found[axis] = xr.IndexVariable((axis,), -np.arange(sizes[axis]), about)
    return found


def annotate(path: Path, run: xr.Dataset, attributes: Mapping[str, str]) -> None:
    """Give the group attributes beside those that it has."""
    _add(path, run, xr.Dataset(attrs=dict(attributes)), {})


def _add(path: Path, run: xr.Dataset, made: xr.Dataset, chunks: Mapping[str, Any]) -> None:
    """Write variables into the group beside those that it has, then make them known."""
    before = measurements(path)
    made = made.assign_coords(repeated(run, {**before.sizes, **made.sizes}))
    made = made.assign_attrs(before.attrs | made.attrs)  # xarray replaces those of the group
    with without_warnings():
        made.to_zarr(path, group=GROUP, mode="a", consolidated=False, encoding=chunks)
    publish_measured(path)


def judges() -> dict[str, str]:
    """Versions of what decides the values."""
    found = versions()
    for name in JUDGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def unmark(path: Path, group: xr.Dataset, metric: Metric, rows: np.ndarray) -> None:
    """Take the marks from samples about to be measured, and from what was measured of them."""
    names, stale = {metric.name}, [metric.name]
    while stale:
        own = {n for n, v in group.data_vars.items() if v.attrs.get("metric") == stale[0]}
        stale = stale[1:] + [k for k, m in METRICS.items() if own & set(m.reads) and k not in names]
        names |= set(stale)
    for name in names & {str(n).removeprefix(MARK) for n in group.data_vars}:
        marks = group[MARK + name].values.copy()
        marks[rows] = 0
        write(path, np.arange(len(marks)), {MARK + name: (("sample",), marks)})


def write(path: Path, rows: np.ndarray, values: Mapping[str, Any]) -> None:
    """Write some samples, which lie side by side, of some variables."""
    region = {"sample": slice(int(rows[0]), int(rows[-1]) + 1)}
    xr.Dataset(values).to_zarr(path, group=GROUP, region=region, consolidated=False)
