"""What all claims use: the margins, estimates with their intervals, and questions that may lack data."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from stepscope.analysis.bootstrap import WITHOUT, Bounds, Statistic
from stepscope.analysis.cells import CELL, cell_keys
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError, setting
from stepscope.analysis.margins import Margins
from stepscope.analysis.number import Number
from stepscope.analysis.verdict import Part
from stepscope.hooks.errors import StepscopeError


def margins(evidence: Evidence) -> Margins:
    """The evidence's margins. Raises StepscopeError where it has none."""
    if evidence.margins is None:
        raise StepscopeError(
            "no verdict without margins: conf/paper.yaml names them under `verdict`"
        )
    return evidence.margins


def attempt(name: str, rule: str, answer: Callable[[], Part], *, decides: bool = False) -> Part:
    """The part that `answer` returns; a part with the reason where it raises StepscopeError."""
    try:
        return answer()
    except StepscopeError as error:
        return Part.missing(name, rule, str(error), decides=decides)


def stack_pairs(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """Two arrays (sample, ...) as one (sample, quantity, ...), over the cells that both have.

    An entry that is NaN in one of them is NaN in both.
    """
    keys, others = cell_keys(first), cell_keys(second)
    common = [key for key in keys if key in others]
    a = first.isel(sample=[keys.index(key) for key in common]).transpose("sample", ...)
    b = second.isel(sample=[others.index(key) for key in common]).transpose(*a.dims)
    both = np.stack([a.values, b.values], 1).astype(float)
    both = np.where(np.isnan(both).any(1, keepdims=True), np.nan, both)
    coords = {word: a.coords[word] for word in CELL}
    return xr.DataArray(both, dims=("sample", "quantity", *a.dims[1:]), coords=coords)


def adapter_off_and_on(
    runs: Sequence[xr.Dataset],
    quantity: Callable[[xr.Dataset], xr.DataArray],
    full: float | None = None,
) -> tuple[xr.DataArray, xr.DataArray]:
    """A quantity (sample, ...) at `adapter.scale` 0 and at the full scale.

    full: the scale of the full adapter; None, or one that no run has, stands for the largest.

    Raises MissingEvidenceError where one of the two is missing.
    """
    values = {setting(run, "adapter.scale"): quantity(run) for run in runs}
    if 0.0 not in values or len(values) < 2:
        raise MissingEvidenceError("weak_adapter has no run without adapter, or none with it")
    return values[0.0], values[full if full in values and full else max(values)]


def number(bounds: Bounds, digits: int = 3, why: str = "–") -> Number:
    """The number of an estimate without dimensions."""
    value, low, high = map(float, bounds)
    return Number(value, low, high, digits, why=why)


def mean(evidence: Evidence, values: xr.DataArray) -> Number:
    """Mean over faces of values (sample)."""
    return Number.of(evidence.average(values), "mean")


def effect(evidence: Evidence, baseline: xr.DataArray, changed: xr.DataArray) -> Number:
    """Paired difference of values (sample), changed minus baseline."""
    return Number.of(evidence.effect(baseline, changed), "effect")


def ratio(evidence: Evidence, above: xr.DataArray, below: xr.DataArray, digits: int = 3) -> Number:
    """Ratio of the means over faces of values (sample)."""
    return Number.of(evidence.ratio(above, below), "ratio", digits)


def crossed(
    evidence: Evidence,
    values: xr.DataArray,
    statistic: Statistic = lambda means: means,
    digits: int = 3,
    shift: float = 0.0,
) -> Number:
    """The statistic of values (sample, ...), with an interval over faces, prompts and seeds.

    shift: added to the estimate and to both ends.
    """
    bounds = evidence.crossed(values, statistic)
    value, low, high = (float(bounds[word]) + shift for word in ("estimate", "low", "high"))
    why = bounds.attrs.get(WITHOUT, "not defined where one is left out" if np.isnan(low) else "–")
    return Number(value if np.isfinite(value) else np.nan, low, high, digits, why=why)


def nan_without_rise(evidence: Evidence, both: xr.DataArray, bounds: Bounds) -> Bounds:
    """The bounds of shares of rises, NaN unless every curve (sample, quantity, point) is shown to rise."""
    rises = evidence.average(both.isel(step=-1) - both.isel(step=0))
    if (rises["low"].values > 0).all():
        return bounds
    unknown = np.full(np.shape(bounds.estimate), np.nan)
    return Bounds(bounds.estimate, unknown, unknown)
