"""Checks before anything is measured: that variables and models are there, and names are free."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import xarray as xr

from stepscope.analysis.metrics import Metric
from stepscope.analysis.rereads import READING, reread_command
from stepscope.analysis.runs import MARK, measurements
from stepscope.hooks.errors import RunError, StepscopeError
from stepscope.probes.weights import WeightsError


def satisfied(
    path: Path,
    recorded: xr.Dataset,
    metrics: Sequence[Metric],
    say: Callable[[str], None],
    firm: Collection[str] = (),
) -> Sequence[Metric]:
    """The metrics that have what they need.

    Says of each other metric what it lacks, and in one line which ones, or which parts of one, need what
    those would have written. Raises StepscopeError where some of `firm`, by name, lack something: one error
    for all of them.
    """
    kept: list[Metric] = []
    lost: set[str] = set()
    behind: list[str] = []
    refused: dict[str, StepscopeError] = {}
    for metric in metrics:
        if lost & (set(metric.reads) - set(metric.optional)):
            lost |= metric.quantities(recorded).keys()
            behind.append(metric.name)
            continue
        try:
            require(path, recorded, [*kept, metric])
        except StepscopeError as error:
            if metric.name in firm:
                refused.setdefault(str(error), error)
            else:
                say(f"left out: {metric.name}: {error}")
            lost |= metric.quantities(recorded).keys() - set(recorded)
        else:
            kept.append(metric)
            behind += [f"{metric.name} {metric.optional[n]}" for n in metric.optional if n in lost]
    if refused:
        raise (
            next(iter(refused.values()))
            if len(refused) == 1
            else StepscopeError("; ".join(refused))
        )
    if behind:
        say(f"left out with it: {', '.join(behind)}")
    return kept


def require(path: Path, recorded: xr.Dataset, metrics: Sequence[Metric]) -> Sequence[Metric]:
    """The same metrics. Raises StepscopeError for what one of them lacks; loads their models.

    path: of the run, which error messages name. recorded: its recorded variables. metrics: in the order
    in which they run; a variable that an earlier one will write counts as present.
    """
    group, run, promised = measurements(path), recorded, set()
    for metric in metrics:
        promised |= metric.quantities(run).keys()
        check_variables(path, metric, promised | {str(name) for name in run})
        if resolve_settings(path, run, group, metric) is None:
            continue
        check_labels(path, recorded, metric)
        run = run.assign_coords(metric.coordinates(run))
        if not complete(group, metric.name):
            metric.load(run)
    return metrics


def check_variables(path: Path, metric: Metric, names: Collection[str]) -> None:
    """Raise RunError where a metric reads a variable that is not among these names."""
    absent = [name for name in metric.reads if name not in {*names, *metric.optional}]
    if absent:
        cure = (
            f"; {reread_command(path, READING[absent[0]])} makes it" if absent[0] in READING else ""
        )
        raise RunError(
            f"{path} has no {', '.join(absent)}: {metric.name} cannot be measured of it{cure}"
        )


def check_labels(path: Path, recorded: xr.Dataset, metric: Metric) -> None:
    """Raise RunError where the user gave a label the name of a variable that the metric writes."""
    for name in (*metric.quantities(recorded), *metric.coordinates(recorded)):
        if name in recorded.coords and "label" in recorded[name].attrs:
            raise RunError(
                f"{path} has a label {name!r}, which is also the name of a variable that {metric.name} "
                "writes: record it under another key"
            )


def resolve_settings(
    path: Path, run: xr.Dataset, group: xr.Dataset, metric: Metric
) -> dict[str, Any] | None:
    """The revision and settings that determine a metric's values, beside the variables that it reads.

    None where the metric is measured already and its models are not on this machine. Raises StepscopeError
    where they are needed, or were named by the user.
    """
    try:
        return {"revision": metric.revision, **metric.settings(run)}
    except WeightsError:
        if complete(group, metric.name) and uses_defaults(metric):
            return None
        raise
    except RunError:  # its message names the run
        raise
    except StepscopeError as error:
        raise StepscopeError(f"{path}: {error}") from error


def unmeasured(path: Path, names: Iterable[str]) -> list[str]:
    """The metrics that have not measured every sample of a run; all of them without a run."""
    group = measurements(path)
    return [name for name in names if not complete(group, name)]


def complete(group: xr.Dataset, name: str) -> bool:
    """Whether a metric has measured every sample, with any settings."""
    return MARK + name in group and bool(group[MARK + name].values.all())


def uses_defaults(metric: Metric) -> bool:
    """Whether every field but `device` and `root` has its default, which is the run's own model or size."""
    own = [f for f in fields(metric) if f.name not in ("device", "root")]  # type: ignore[arg-type]
    return all(getattr(metric, f.name) == f.default for f in own)
