"""What a metric is: fields, a call on samples, and the variables that it writes."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from stepscope.probes.file_digest import digest
from stepscope.probes.weights import weight_files

Direction = Literal["higher is better", "lower is better", "neither"]


@dataclass(frozen=True)
class Quantity:
    """One measured variable: its dimensions after `sample`, numpy dtype, unit, meaning, direction.

    more: further attributes. true_where: for a truth value, the variable of the same metric and the value
        of it where this one is true; the metric's call returns only the others.
    """

    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    direction: Direction = "neither"
    more: Mapping[str, Any] | None = None
    true_where: tuple[str, int] | None = None


class Metric(ABC):
    """One metric: frozen fields hold its parameters, `__call__` computes the values, and it keeps no state.

    name: in the list and on the command line. reads: variables of the run, recorded or measured by
    another metric, that the call needs. optional: those of them without which a part is measured still,
    and in words what is then left out. revision: raised when the code's values change. whole: a
    sample's values depend on the others', so that all are measured together.
    """

    name: ClassVar[str]
    reads: ClassVar[tuple[str, ...]]
    optional: ClassVar[Mapping[str, str]] = MappingProxyType({})
    revision: ClassVar[int] = 1
    whole: ClassVar[bool] = False

    def preflight(self) -> None:
        """Load what the call needs whatever the run is, on the CPU: no run has been made yet.

        Raises StepscopeError, in one line with its cure, for libraries, weights and files that are not
        on this machine. Those of the run's own models `settings` finds.
        """
        return

    @abstractmethod
    def quantities(self, run: xr.Dataset) -> Mapping[str, Quantity]:
        """The variables that the metric writes for a run, by name."""

    @abstractmethod
    def settings(self, run: xr.Dataset) -> dict[str, Any]:
        """Everything besides `reads` that decides the values, model files by hash, as JSON values.

        Raises WeightsError for a model that is not on this machine.
        """

    def load(self, run: xr.Dataset) -> None:
        """Load and keep the models that the call needs. Raises WeightsError for incomplete models."""
        return

    @abstractmethod
    def __call__(self, samples: xr.Dataset) -> dict[str, np.ndarray]:
        """Values (sample, ...) of every variable, from some samples of a run with its attributes."""

    def coordinates(self, run: xr.Dataset) -> dict[str, tuple[str, Any]]:
        """Coordinates of the axes that only this metric has: name -> (axis, values)."""
        return {}


def fingerprint(values: Any) -> int:
    """A number from 1 to 2^63 - 1 of JSON values."""
    text = json.dumps(values, sort_keys=True)
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1) or 1


def digests(path: str | Path) -> dict[str, str]:
    """SHA-256 of every weight file of a folder, or of a file, by its name within."""
    return {name: _digest(f, f.stat().st_mtime_ns) for name, f in weight_files(path).items()}


@cache
def _digest(path: Path, changed: int) -> str:
    return digest(path)
