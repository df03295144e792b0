"""Measure runs: each metric writes to the run's `analysis` group, sample by sample, once for its inputs.

Recorded variables are never changed; the run's metadata names the group, so that readers see it. Each
metric also writes `measured_<metric>` (sample): 0 where a sample is not measured, else a fingerprint of
the variables, settings and models that it was measured with. It is written after the values, so that an
interrupted measurement continues and never looks finished. A step that did not run, because a call was
interrupted, is not measured, and neither is what is not finite: both are NaN.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import xarray as xr

from stepscope.analysis.as_before import as_before, keep
from stepscope.analysis.group import (
    complete,
    create,
    discard,
    laid_out,
    repeat,
    truths,
    unmark,
    write,
)
from stepscope.analysis.interventions import INTERVENTION, JOINED
from stepscope.analysis.metrics import METRICS, Metric
from stepscope.analysis.metrics.metric import Quantity, fingerprint
from stepscope.analysis.metrics.photos import check_people
from stepscope.analysis.needs import (
    check_variables,
    resolve_settings,
    satisfied,
    unmeasured,
)
from stepscope.analysis.runs import MARK, content, measurements, open_recorded, reading
from stepscope.analysis.settings import Settings
from stepscope.analysis.valid import (
    frames_there,
    images_there,
    not_finite,
    steps_run,
    steps_there,
)
from stepscope.hooks.errors import StepscopeError, nearest
from stepscope.hooks.paths import run_path
from stepscope.hooks.store import publish_measured

Say = Callable[[str], None]
FRAMES = 64  # most images read at once, unless one sample has more


def measure_all(
    runs: Sequence[str | Path],
    metrics: Sequence[str],
    settings: Settings | None = None,
    say: Say = lambda text: None,
    *,
    leave_out: bool = False,
    remember: bool = False,
    dry: bool = False,
) -> list[str]:
    """Measure runs with the named metrics and those that they read; models are loaded once.

    Samples that were measured with the same inputs are skipped. Raises StepscopeError, before anything is
    measured, for an unknown metric, an unfinished run, a photo of nobody in the runs, a run that lacks a
    variable that a metric reads, and for models and libraries that are not on this machine.

    leave_out: leave such a metric out of that run instead, with one line that gives the remedy. remember:
    what these settings do not name, an earlier measurement of the run names (`as_before`). dry: say what
    would be measured, and measure nothing.
    Returns the names, of those asked for, by which every run is measured.
    """
    check_names(metrics)
    given = settings or Settings()
    opened = [(path, open_recorded(path)) for path in map(run_path, runs)]
    check_people(given.references, [recorded for _, recorded in opened])
    planned = []
    for path, recorded in opened:
        used = as_before(path, given, say) if remember else given
        firm = [] if leave_out else [m.name for m in ordered(metrics, recorded, used, firm=True)]
        kept = satisfied(path, recorded, ordered(metrics, recorded, used), say, firm)
        planned.append((path, recorded, used, kept))
    for path, recorded, used, wanted in planned:
        if dry:
            left = unmeasured(path, [metric.name for metric in wanted])
            count = recorded.sizes["sample"]
            many = f"{count} sample{'s' * (count != 1)}"
            say(f"{path}: {many}, to measure: {', '.join(left) or 'nothing new'}")
            continue
        bad = int((not_finite(recorded) != "").sum())
        if bad:
            say(
                f"{path}: {bad} of {recorded.sizes['sample']} samples hold numbers that are not finite "
                "(listed in its coordinate not_finite): their measurements are NaN"
            )
        if remember:
            keep(path, recorded, used)
        for metric in wanted:
            measure(path, recorded, metric, say)
        repeat(path, recorded)
        publish_measured(path)  # a run that was measured before its document named the group
    everywhere = set.intersection(
        *({metric.name for metric in kept} for *_, kept in planned), set(metrics)
    )
    return [name for name in metrics if name in everywhere]


def preflight(metrics: Sequence[str], settings: Settings | None = None) -> None:
    """Check, before any run is made, that the named metrics can be measured on this machine.

    Raises one StepscopeError with all missing libraries, weights and files, and how to get them.
    `measure_all` checks what depends on the run, such as its VAE and recognisers. Completely measured
    metrics need no check, see `needs.unmeasured`.
    """
    check_names(metrics)
    lacking: dict[str, list[str]] = {}
    for name in metrics:
        try:
            build_metric(METRICS[name], settings or Settings()).preflight()
        except StepscopeError as error:
            lacking.setdefault(str(error), []).append(name)
    if lacking:
        problems = [f"metrics=[{','.join(names)}]: {error}" for error, names in lacking.items()]
        raise StepscopeError("; ".join(problems))


def check_names(metrics: Sequence[str]) -> None:
    """Raise StepscopeError, with the nearest name, for an unknown metric."""
    for name in metrics:
        if name not in METRICS:
            raise StepscopeError(f"metrics: no {name!r}; {nearest(name, METRICS)}")


def ordered(
    names: Sequence[str], run: xr.Dataset, settings: Settings, *, firm: bool = False
) -> list[Metric]:
    """The named metrics, each after those whose variables it reads; if `firm`, those it must have."""
    every = {name: build_metric(kind, settings) for name, kind in METRICS.items()}
    wanted: set[str] = set()

    def want(name: str) -> None:
        wanted.add(name)
        spared = every[name].optional if firm else ()
        for variable in set(every[name].reads) - set(spared):
            for other, metric in every.items():
                mine = other != name and variable not in run and variable in metric.quantities(run)
                if mine and other not in wanted:
                    want(other)

    for name in names:
        want(name)
    return [metric for name, metric in every.items() if name in wanted]


def build_metric(kind: type[Metric], settings: Settings) -> Metric:
    """A metric with the settings that it has fields for."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{f.name: getattr(settings, f.name) for f in fields(settings) if f.name in names})


def measure(path: Path, recorded: xr.Dataset, metric: Metric, say: Say) -> None:
    """Measure the samples of a run that are not measured, or whose inputs changed.

    recorded: the run's recorded variables. Raises RunError for a variable that the run lacks.
    """
    group = measurements(path)
    run = recorded.assign({n: v for n, v in group.data_vars.items() if n not in recorded.variables})
    quantities = metric.quantities(run)
    check_variables(path, metric, {*map(str, run), *quantities})
    settings = resolve_settings(path, run, group, metric)
    if settings is None:
        say(f"{path}: {metric.name} was measured before; its models are not on this machine")
        return
    marks = input_marks(path, recorded, group, metric, fingerprint([metric.name, settings]))
    coordinates = {
        "sample": ("sample", run["sample"].values),
        "step": ("step", run["step"].values),
        **metric.coordinates(run),
    }
    if not laid_out(group, metric, quantities, coordinates, settings):
        discard(path, group, metric, coordinates)
        create(path, run, metric, coordinates, settings)
        group = measurements(path)
    elif any(name not in group for name in quantities):  # measured by an older version
        complete(path, run, group, metric)
    left = np.flatnonzero(group[MARK + metric.name].values != marks)
    if not len(left):
        return
    if metric.whole:
        left = np.arange(len(marks))
    say(f"{path}: {metric.name}, {len(left)} of {len(marks)} samples")
    unmark(path, group, metric, left)
    most = len(left) if metric.whole else max(1, FRAMES // frames(run, metric))
    for rows in blocks(left, most):
        names = [name for name in metric.reads if name in run]
        with reading(path, run.attrs):
            samples = run[names].isel(sample=slice(rows[0], rows[-1] + 1)).load()
            values, seen = metric(samples), recorded.isel(sample=rows)
            values |= truths(quantities, values)
            kept = {
                n: (("sample", *q.dims), mask(metric, samples, seen, values[n], q))
                for n, q in quantities.items()
            }
        write(path, rows, kept)
        write(path, rows, {MARK + metric.name: (("sample",), marks[rows])})


def frames(run: xr.Dataset, metric: Metric) -> int:
    """Images of one sample that a metric reads at once: one of each step, or the final one alone."""
    along = any("step" in run[name].dims for name in metric.reads if name in run)
    return run.sizes["step"] if along else 1


def input_marks(
    path: Path, recorded: xr.Dataset, group: xr.Dataset, metric: Metric, key: int
) -> np.ndarray:
    """The fingerprint (sample,) of the content that the metric reads of each sample, and of `key`."""
    joined = JOINED if INTERVENTION in recorded.attrs else ()
    own = [name for name in metric.reads if name in recorded and name not in joined]
    others = {group[n].attrs["metric"] for n in metric.reads if n in group and n not in recorded}
    before = sorted(MARK + name for name in others - {metric.name})
    ran, steps = steps_run(recorded), recorded.sizes["step"]
    bad = not_finite(recorded)

    def mark(i: int) -> int:
        read = [[content(path, n, i) for n in own], [int(group[m][i]) for m in before]]
        less = [int(ran[i])] if ran[i] < steps else []
        return fingerprint([key, *read, *less, *([bad[i]] if bad[i] else [])])

    return np.array([mark(i) for i in range(recorded.sizes["sample"])], dtype=np.int64)


def mask(
    metric: Metric,
    samples: xr.Dataset,
    recorded: xr.Dataset,
    values: np.ndarray,
    quantity: Quantity,
) -> np.ndarray:
    """Values (sample, ...) of what is there; NaN, or 0 in a flag, of steps that did not run or that are not
    finite, and of images that are not finite. Images themselves are returned unchanged.
    """
    if quantity.dtype == "uint8":
        return values
    there = np.ones(values.shape[:1], bool)
    if {"image", "final_keypoints"} & set(metric.reads) and "step" not in quantity.dims:
        there = images_there(recorded)
    if "step" in quantity.dims:
        there = steps_there(recorded)
        bad = not_finite(recorded) != ""
        if "decoded" in metric.reads and bad.any():
            there[bad] &= frames_there(samples["decoded"].values[bad])
        if "image" in metric.reads:
            there &= images_there(recorded)[:, None]
        axis = 1 + quantity.dims.index("step")
        there = there.reshape(len(values), *[1] * (axis - 1), -1)
    there = there.reshape(*there.shape, *[1] * (values.ndim - there.ndim))
    return np.where(
        there, values, values.dtype.type(np.nan if quantity.dtype.startswith("float") else 0)
    )


def blocks(rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Split ascending rows into contiguous blocks of at most `most` rows."""
    for stretch in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        yield from np.split(stretch, range(most, len(stretch), most))
