"""Measure runs: each metric into the run's `analysis` group, sample by sample, once for its inputs.

What was recorded is never written to; the run's document names the group besides, so that readers see
it. Beside a metric's variables stands `measured_<metric>` (sample): 0 where a sample is not measured,
else a number made from the hashes of what was read and of the settings and models that read it. It is
written after the values, so that an interrupted measurement continues where it stopped and never looks
finished. Of a step that did not run, where a call was interrupted, nothing is measured.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import xarray as xr

from analysis.group import create, discard, laid_out, unmark, write
from analysis.metrics import METRICS, Metric
from analysis.metrics.metric import Quantity, fingerprint
from analysis.metrics.perceptual_pocket import PocketDistance
from analysis.needs import able, readable, require, settled
from analysis.runs import MARK, content, measurements, open_recorded, reading
from hooks.errors import StepscopeError, nearest
from hooks.paths import run_path
from hooks.store import publish_measured

Say = Callable[[str], None]
FRAMES = 64  # images read at once, or one sample's


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
    perceptual: str = PocketDistance.perceptual
    photos: Sequence[str] = ()
    references: Mapping[str, str] | Sequence[str] = ()
    device: str = "auto"


def measure_all(
    runs: Sequence[str | Path],
    metrics: Sequence[str],
    settings: Settings | None = None,
    say: Say = lambda text: None,
    *,
    leave_out: bool = False,
) -> None:
    """Measure runs by the named metrics and those that they need; models are loaded once.

    What is measured with the same inputs is left as it is. Raises StepscopeError, before anything is
    measured, for an unknown metric, for what is no finished run, for a run that lacks what a metric
    reads, and for models and libraries that are not on this machine; with `leave_out` that metric is
    left out of that run, in one line with its cure, and the others are measured.
    """
    refuse_unknown(metrics)
    planned = []
    for path in map(run_path, runs):
        recorded = open_recorded(path)
        planned.append((path, recorded, ordered(metrics, recorded, settings or Settings())))
    kept = [
        able(path, recorded, wanted, say) if leave_out else require(path, recorded, wanted)
        for path, recorded, wanted in planned
    ]
    for (path, recorded, _), wanted in zip(planned, kept, strict=True):
        for metric in wanted:
            measure(path, recorded, metric, say)
        publish_measured(path)  # a run that was measured before its document named the group


def preflight(metrics: Sequence[str], settings: Settings | None = None) -> None:
    """Find out, before any run is made, whether the named metrics can be measured at all.

    Raises one StepscopeError with all that is not on this machine (libraries, weights, files) and how
    to get it. What hangs on a run, as its own VAE and recognisers do, `measure_all` looks for; what was
    measured whole needs nothing any more, see `needs.unmeasured`.
    """
    refuse_unknown(metrics)
    lacking: dict[str, list[str]] = {}
    for name in metrics:
        try:
            built(METRICS[name], settings or Settings()).preflight()
        except StepscopeError as error:
            lacking.setdefault(str(error), []).append(name)
    if lacking:
        told = [f"metrics=[{','.join(names)}]: {error}" for error, names in lacking.items()]
        raise StepscopeError("; ".join(told))


def refuse_unknown(metrics: Sequence[str]) -> None:
    """Raise StepscopeError, with the nearest name, for one that is no metric's."""
    for name in metrics:
        if name not in METRICS:
            raise StepscopeError(f"metrics: no {name!r}; {nearest(name, METRICS)}")


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
    readable(path, metric, {*map(str, run), *quantities})
    settings = settled(path, run, group, metric)
    if settings is None:
        say(f"{path}: {metric.name} was measured before; its models are not on this machine")
        return
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
    if metric.whole:
        left = np.arange(len(marks))
    say(f"{path}: {metric.name}, {len(left)} of {len(marks)} samples")
    unmark(path, group, metric, left)
    most = len(left) if metric.whole else max(1, FRAMES // run.sizes["step"])
    for rows in blocks(left, most):
        names = [name for name in metric.reads if name in run]
        with reading(path, run.attrs):
            samples = run[names].isel(sample=slice(rows[0], rows[-1] + 1)).load()
        values, ran = metric(samples), steps_run(recorded)[rows]
        kept = {n: (("sample", *q.dims), of_run(values[n], q, ran)) for n, q in quantities.items()}
        write(path, rows, kept)
        write(path, rows, {MARK + metric.name: (("sample",), marks[rows])})


def inputs(
    path: Path, recorded: xr.Dataset, group: xr.Dataset, metric: Metric, key: int
) -> np.ndarray:
    """The mark (sample,) of each sample: what the metric reads of it, by content, and `key`."""
    own = [name for name in metric.reads if name in recorded]
    others = {group[n].attrs["metric"] for n in metric.reads if n in group and n not in recorded}
    before = sorted(MARK + name for name in others - {metric.name})
    ran, steps = steps_run(recorded), recorded.sizes["step"]

    def mark(i: int) -> int:
        read = [[content(path, n, i) for n in own], [int(group[m][i]) for m in before]]
        return fingerprint([key, *read, *([int(ran[i])] if ran[i] < steps else [])])

    return np.array([mark(i) for i in range(recorded.sizes["sample"])], dtype=np.int64)


def steps_run(run: xr.Dataset) -> np.ndarray:
    """How many steps of each sample were run; all of them where that is not known."""
    ran = run["steps_run"].values
    return np.where(ran < 0, run.sizes["step"], ran)


def of_run(values: np.ndarray, quantity: Quantity, ran: np.ndarray) -> np.ndarray:
    """Values (sample, ...), of which the first `ran` steps of each sample are kept.

    The others are NaN, and 0 (not measured) in a flag. A picture stays as black as it was decoded.
    """
    if "step" not in quantity.dims or quantity.dtype == "uint8":
        return values
    axis = 1 + quantity.dims.index("step")
    step = np.arange(values.shape[axis]).reshape(-1, *[1] * (values.ndim - axis - 1))
    kept = step < ran.reshape(-1, *[1] * (values.ndim - 1))
    return np.where(kept, values, values.dtype.type(0 if quantity.dtype == "int8" else np.nan))


def blocks(rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Rows in stretches that lie side by side, of at most so many."""
    for stretch in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        yield from np.split(stretch, range(most, len(stretch), most))
