"""Measure runs: each metric into the run's `analysis` group, sample by sample, once for its inputs.

The recorded root is never written to. Beside a metric's variables stands `measured_<metric>`
(sample): 0 where a sample is not measured, else a number made from the hashes of what was read and
of the settings and models that read it. It is written after the values, so that an interrupted
measurement continues where it stopped and never looks finished.
"""

import importlib.metadata
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from analysis.metrics import METRICS, Metric
from analysis.metrics.metric import Quantity, fingerprint
from analysis.runs import GROUP, MARK, content, measurements, open_recorded, reading
from hooks.errors import RunError, StepscopeError, nearest
from hooks.provenance import versions
from probes.weights import WeightsError

Say = Callable[[str], None]
FRAMES = 64  # images read at once, or one sample's
WHOLE = 2**16  # bytes of one sample's values from which each sample is a chunk
JUDGES = ("insightface", "onnxruntime", "opencv-python-headless", "lpips")


@dataclass(frozen=True)
class Settings:
    """Parameters of all metrics; each field is one of some metric's, which documents it."""

    recognisers: Sequence[str] | None = None
    det_size: int | None = None
    root: str = "~/.insightface"
    vae: str | None = None
    image_size: int | None = None
    face_size: int | None = None
    lpips: str = "alex"
    dinov2: str = "facebook/dinov2-base"
    dinov2_size: int = 224
    many_step: str | None = None
    device: str = "auto"


def measure_all(
    runs: Sequence[str | Path],
    metrics: Sequence[str],
    settings: Settings | None = None,
    say: Say = lambda text: None,
) -> None:
    """Measure runs by the named metrics and those that they need; models are loaded once.

    What is measured with the same inputs is left as it is. Raises StepscopeError for an unknown
    metric, for what is no finished run, and for models that are not on this machine.
    """
    for name in metrics:
        if name not in METRICS:
            raise StepscopeError(f"metrics: no {name!r}; {nearest(name, METRICS)}")
    for path in map(Path, runs):
        recorded = open_recorded(path)
        for metric in ordered(metrics, recorded, settings or Settings()):
            measure(path, recorded, metric, say)


def ordered(names: Sequence[str], run: xr.Dataset, settings: Settings) -> list[Metric]:
    """The named metrics and, before them, those whose variables they read."""
    every = {name: built(kind, settings) for name, kind in METRICS.items()}
    wanted: set[str] = set()

    def want(name: str) -> None:
        wanted.add(name)
        for variable in every[name].reads:
            for other, metric in every.items():
                mine = other != name and variable not in run and variable in metric.quantities(run)
                if mine and other not in wanted:
                    want(other)

    for name in names:
        want(name)
    return [metric for name, metric in every.items() if name in wanted]


def built(kind: type[Metric], settings: Settings) -> Metric:
    """A metric with those of the settings that it has."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{f.name: getattr(settings, f.name) for f in fields(settings) if f.name in names})


def measure(path: Path, recorded: xr.Dataset, metric: Metric, say: Say) -> None:
    """Measure the samples of a run that are not, or whose inputs changed."""
    group = measurements(path)
    run = recorded.assign({n: v for n, v in group.data_vars.items() if n not in recorded.variables})
    quantities = metric.quantities(run)
    absent = [name for name in metric.reads if name not in run and name not in quantities]
    if absent:
        raise RunError(f"{path} has no {', '.join(absent)}: {metric.name} cannot be measured of it")
    try:
        settings = {"revision": metric.revision, **metric.settings(run)}
    except WeightsError:
        if complete(group, metric.name) and by_default(metric):
            say(f"{path}: {metric.name} was measured before; its models are not on this machine")
            return
        raise
    except RunError:  # it names its run
        raise
    except StepscopeError as error:
        raise StepscopeError(f"{path}: {error}") from error
    marks = inputs(path, recorded, group, metric, fingerprint([metric.name, settings]))
    coordinates = {
        "sample": ("sample", run["sample"].values),
        "step": ("step", run["step"].values),
        **metric.coordinates(run),
    }
    if not laid_out(group, metric, quantities, coordinates, settings):
        discard(path, group, metric, coordinates)
        create(path, run, metric, coordinates, settings)
        group = measurements(path)
    left = np.flatnonzero(group[MARK + metric.name].values != marks)
    if not len(left):
        return
    say(f"{path}: {metric.name}, {len(left)} of {len(marks)} samples")
    unmark(path, group, metric, left)
    for rows in blocks(left, max(1, FRAMES // run.sizes["step"])):
        names = [name for name in metric.reads if name in run]
        with reading(path, run.attrs):
            samples = run[names].isel(sample=slice(rows[0], rows[-1] + 1)).load()
        values = metric(samples)
        write(path, rows, {n: (("sample", *q.dims), values[n]) for n, q in quantities.items()})
        write(path, rows, {MARK + metric.name: (("sample",), marks[rows])})


def inputs(
    path: Path, recorded: xr.Dataset, group: xr.Dataset, metric: Metric, key: int
) -> np.ndarray:
    """The mark (sample,) of each sample: what the metric reads of it, by content, and `key`."""
    own = [name for name in metric.reads if name in recorded]
    others = {group[n].attrs["metric"] for n in metric.reads if n in group and n not in recorded}
    before = sorted(MARK + name for name in others - {metric.name})
    return np.array(
        [
            fingerprint(
                [key, [content(path, n, i) for n in own], [int(group[m][i]) for m in before]]
            )
            for i in range(recorded.sizes["sample"])
        ],
        dtype=np.int64,
    )


def complete(group: xr.Dataset, name: str) -> bool:
    """Whether a metric has measured every sample, of whatever inputs."""
    return MARK + name in group and bool(group[MARK + name].values.all())


def by_default(metric: Metric) -> bool:
    """Whether nobody named another model or size than the run's own."""
    own = [f for f in fields(metric) if f.name not in ("device", "root")]  # type: ignore[arg-type]
    return all(getattr(metric, f.name) == f.default for f in own)


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
    for name, owner in sorted(of.items(), key=lambda item: not item[0].startswith(MARK)):
        if (owner in gone and owner is not None) or changed & set(group[name].dims):
            shutil.rmtree(path / GROUP / name)


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
            "long_name": q.long_name,
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
        "long_name": f"which inputs {metric.name} was measured of; 0 where it was not",
        "metric": metric.name,
    }
    marks = np.zeros(sizes["sample"], np.int64)
    variables[MARK + metric.name] = (("sample",), marks, mark)
    made = xr.Dataset(variables, {n: (axis, texts(v)) for n, (axis, v) in coordinates.items()})
    made.to_zarr(path, group=GROUP, mode="a", consolidated=False, encoding=chunks)


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


def blocks(rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Rows in stretches that lie side by side, of at most so many."""
    for stretch in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        yield from np.split(stretch, range(most, len(stretch), most))
