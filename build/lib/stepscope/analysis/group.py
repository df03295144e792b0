"""The run's `analysis` group: places for each metric's variables, and marks of what was measured."""

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.metrics import METRICS, Metric
from stepscope.analysis.metrics.metric import Quantity
from stepscope.analysis.runs import GROUP, MARK
from stepscope.hooks.provenance import versions
from stepscope.hooks.store import publish_measured
from stepscope.hooks.vocabulary import described

WHOLE = 2**16  # bytes of one sample's values from which each sample is a chunk
JUDGES = ("insightface", "onnxruntime", "opencv-python-headless", "lpips")


def laid_out(
    group: xr.Dataset,
    metric: Metric,
    quantities: Mapping[str, Quantity],
    coordinates: Mapping[str, tuple[str, Any]],
    settings: Mapping[str, Any],
) -> bool:
    """Whether the group has the metric's variables, by these settings."""
    if MARK + metric.name not in group or any(name not in group for name in quantities):
        return False
    by = [group[name].attrs.get("provenance", {}).get("settings") for name in quantities]
    return all(one == settings for one in by) and all(
        name in group and np.array_equal(group[name].values, np.asarray(values))
        for name, (_, values) in coordinates.items()
    )


def discard(
    path: Path, group: xr.Dataset, metric: Metric, coordinates: Mapping[str, tuple[str, Any]]
) -> None:
    """Remove the metric's variables, and all that lie on axes which now have other values."""
    changed = {
        axis
        for name, (axis, values) in coordinates.items()
        if name in group and not np.array_equal(group[name].values, np.asarray(values))
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
    provenance = {"settings": settings, "versions": judges()}
    variables, chunks = {}, {}
    for name, q in metric.quantities(run).items():
        shape = tuple(sizes[axis] for axis in ("sample", *q.dims))
        fill = np.nan if q.dtype.startswith("float") else 0
        about = {
            "units": q.units,
            **described(name, q.long_name),
            "direction": q.direction,
            **(q.more or {}),
            "metric": metric.name,
            "provenance": provenance,
        }
        # A view of one number: the whole variable is never in memory.
        values = np.broadcast_to(np.array(fill, q.dtype), shape)
        variables[name] = (("sample", *q.dims), values, about)
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
    made = xr.Dataset(variables, {n: (axis, texts(v)) for n, (axis, v) in coordinates.items()})
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


def texts(values: Any) -> Any:
    """Words as strings of any length, which Zarr specifies."""
    array = np.asarray(values)
    return array.astype(np.dtypes.StringDType()) if array.dtype.kind == "U" else array


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
