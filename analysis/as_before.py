"""What was named for one measurement of a run holds for the next: recognisers, photos, folders.

A run that `record` made names neither who judges it nor all of whom it should show. Measured again without
them, it would lose what was measured with them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from stepscope.analysis.group import annotate
from stepscope.analysis.runs import measurements
from stepscope.analysis.settings import Settings
from stepscope.probes.places import located

KEPT = ("recognisers", "references", "photos", "root", "vae", "many_step")
"""Settings that name files and people, which no run can supply itself."""
ATTRIBUTE = "named"
"""Of the group of measurements: those settings as they were named, as JSON text."""


def as_before(path: Path, settings: Settings, say: Callable[[str], None]) -> Settings:
    """The settings, with what an earlier measurement of the run named and these do not; says so."""
    before = json.loads(measurements(path).attrs.get(ATTRIBUTE, "{}"))
    added = {k: v for k, v in before.items() if k in KEPT and not _is_named(settings, k)}
    if added:
        told = " and ".join(f"{key}={_spoken(value)}" for key, value in added.items())
        say(f"{path}: measured before with {told}, which is used again")
    return replace(settings, **added)


def keep(path: Path, recorded: xr.Dataset, settings: Settings) -> None:
    """Write into the run's group of measurements what these settings name; paths as absolute ones."""
    named = {k: _absolute(getattr(settings, k)) for k in KEPT if _is_named(settings, k)}
    before = json.loads(measurements(path).attrs.get(ATTRIBUTE, "{}"))
    if named and before != before | named:
        annotate(path, recorded, {ATTRIBUTE: json.dumps(before | named, ensure_ascii=False)})


def _is_named(settings: Settings, key: str) -> bool:
    value = getattr(settings, key)
    value = list(value) if isinstance(value, tuple) else value
    return bool(value) and value != getattr(Settings(), key)


def _absolute(value: Any) -> Any:
    """Paths that are there as absolute ones; names, such as `antelopev2`, as they are."""
    if isinstance(value, Mapping):
        return {name: _absolute(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_absolute(one) for one in value]
    place = located(value)
    return str(place.absolute()) if place.exists() else value


def _spoken(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {one}" for name, one in value.items()) + "}"
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)
