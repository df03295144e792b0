"""What measuring a run needs, found out before anything is measured: variables, models, free names."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import xarray as xr

from analysis.metrics import Metric
from analysis.rereads import READING, making
from analysis.runs import MARK, measurements
from hooks.errors import RunError, StepscopeError
from probes.weights import WeightsError


def able(
    path: Path, recorded: xr.Dataset, metrics: Sequence[Metric], say: Callable[[str], None]
) -> Sequence[Metric]:
    """Those of the metrics that have what they need; of the others, why not, in one line each."""
    kept: list[Metric] = []
    for metric in metrics:
        try:
            require(path, recorded, [*kept, metric])
        except StepscopeError as error:
            say(f"left out: {metric.name}: {error}")
        else:
            kept.append(metric)
    return kept


def require(path: Path, recorded: xr.Dataset, metrics: Sequence[Metric]) -> Sequence[Metric]:
    """The same metrics; raises StepscopeError for what one of them needs and has not.

    metrics: in their order; what an earlier one will write counts as there. Models are loaded.
    """
    group, run, promised = measurements(path), recorded, set()
    for metric in metrics:
        promised |= metric.quantities(run).keys()
        readable(path, metric, promised | {str(name) for name in run})
        if settled(path, run, group, metric) is None:
            continue
        refuse_label(path, recorded, metric)
        run = run.assign_coords(metric.coordinates(run))
        if not complete(group, metric.name):
            metric.load(run)
    return metrics


def readable(path: Path, metric: Metric, names: Collection[str]) -> None:
    """Raise RunError if these variables of a run are not all that a metric reads."""
    absent = [name for name in metric.reads if name not in names]
    if absent:
        cure = f"; {making(path, READING[absent[0]])} makes it" if absent[0] in READING else ""
        raise RunError(
            f"{path} has no {', '.join(absent)}: {metric.name} cannot be measured of it{cure}"
        )


def refuse_label(path: Path, recorded: xr.Dataset, metric: Metric) -> None:
    """Raise RunError if a label of the user's own has a name that the metric gives to what it measures."""
    for name in (*metric.quantities(recorded), *metric.coordinates(recorded)):
        if name in recorded.coords and "label" in recorded[name].attrs:
            raise RunError(
                f"{path} has a label {name!r}, which is what {metric.name} calls something that it "
                "measures: record under another key"
            )


def settled(
    path: Path, run: xr.Dataset, group: xr.Dataset, metric: Metric
) -> dict[str, Any] | None:
    """What decides a metric's values besides what it reads; None if it is measured and that is gone.

    Raises StepscopeError for models that are not on this machine, where they were named or needed.
    """
    try:
        return {"revision": metric.revision, **metric.settings(run)}
    except WeightsError:
        if complete(group, metric.name) and by_default(metric):
            return None
        raise
    except RunError:  # it names its run
        raise
    except StepscopeError as error:
        raise StepscopeError(f"{path}: {error}") from error


def unmeasured(path: Path, names: Iterable[str]) -> list[str]:
    """Those of the metrics that have not measured every sample of a run; all where there is no run yet."""
    group = measurements(path)
    return [name for name in names if not complete(group, name)]


def complete(group: xr.Dataset, name: str) -> bool:
    """Whether a metric has measured every sample, of whatever inputs."""
    return MARK + name in group and bool(group[MARK + name].values.all())


def by_default(metric: Metric) -> bool:
    """Whether nobody named another model or size than the run's own."""
    own = [f for f in fields(metric) if f.name not in ("device", "root")]  # type: ignore[arg-type]
    return all(getattr(metric, f.name) == f.default for f in own)
