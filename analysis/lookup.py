"""Look up what one measured run holds: variables, settings, and the command that adds what is missing."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from stepscope.analysis.metrics import METRICS
from stepscope.analysis.remake import recording
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.usage import says


class MissingEvidenceError(StepscopeError):
    """A run, or a measurement of it, that a figure or a table needs is missing."""


def setting(run: xr.Dataset, name: str) -> Any:
    """A value of the run's resolved configuration, e.g. `adapter.scale`; None where there is none.

    `backbone` stands for `backbone.name`.
    """
    value: Any = run.attrs["configuration"]
    for word in {"backbone": "backbone.name"}.get(name, name).split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value


def measured(run: xr.Dataset, name: str) -> xr.DataArray:
    """A variable (sample, ...) of the run with its coordinates.

    Raises MissingEvidenceError, with the command that adds it, for a variable that the run lacks.
    """
    if name not in run:
        raise MissingEvidenceError(
            f"{name} is not in the run of {setting(run, 'backbone')}, {setting(run, 'steps')} steps: "
            f"{remedy(run, name)}"
        )
    return run[name]


def remedy(run: xr.Dataset, name: str) -> str:
    """The command that adds a missing variable: the metric that measures it, or a new recording."""
    path = run.attrs.get("path", "...")
    by = [kind.name for kind in METRICS.values() if name in kind().quantities(run)]
    if by:
        return f"{says('measure')} {path} metrics=[{by[0]}] measures it"
    return f"it was not recorded; {recording(run.attrs, path)} made the run"


def reread_samples(values: xr.DataArray, run: xr.Dataset, source: str) -> xr.DataArray:
    """Measurements (sample, ...) of the samples whose variable `source` was read again."""
    if source not in run:
        return values
    reread = set(run[source].attrs["samples"])
    return values.isel(sample=[s in reread for s in values["sample"].values.tolist()])
