"""What claims share in asking: numbers of the evidence, and parts that say why they were not asked."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from analysis.bootstrap import WITHOUT, Bounds, Statistic
from analysis.cells import CELL, cell_keys
from analysis.evidence import Evidence
from analysis.margins import Margins
from analysis.number import Number
from analysis.verdict import Part
from hooks.errors import StepscopeError


def margins(evidence: Evidence) -> Margins:
    """Those of the evidence. Raises StepscopeError where it names none."""
    if evidence.margins is None:
        raise StepscopeError(
            "no verdict without margins: conf/paper.yaml names them under `verdict`"
        )
    return evidence.margins


def attempt(name: str, rule: str, ask: Callable[[], Part], *, decides: bool = False) -> Part:
    """The part that `ask` gives, or that it could not be asked, and why."""
    try:
        return ask()
    except StepscopeError as error:
        return Part.missing(name, rule, str(error), decides=decides)


def joined(first: xr.DataArray, second: xr.DataArray) -> xr.DataArray:
    """Two arrays (sample, ...) side by side (sample, quantity, ...), in the cells that both have.

    What one of them lacks is NaN in both.
    """
    keys, others = cell_keys(first), cell_keys(second)
    common = [key for key in keys if key in others]
    a = first.isel(sample=[keys.index(key) for key in common]).transpose("sample", ...)
    b = second.isel(sample=[others.index(key) for key in common]).transpose(*a.dims)
    both = np.stack([a.values, b.values], 1).astype(float)
    both = np.where(np.isnan(both).any(1, keepdims=True), np.nan, both)
    kept = {word: a.coords[word] for word in CELL}
    return xr.DataArray(both, dims=("sample", "quantity", *a.dims[1:]), coords=kept)


def number(bounds: Bounds, digits: int = 3, why: str = "–") -> Number:
    """Of an estimate without dimensions."""
    value, low, high = map(float, bounds)
    return Number(value, low, high, digits, why=why)


def effect(evidence: Evidence, baseline: xr.DataArray, changed: xr.DataArray) -> Number:
    """Paired difference, changed minus baseline."""
    return Number.of(evidence.effect(baseline, changed), "effect")


def wider(
    evidence: Evidence,
    values: xr.DataArray,
    statistic: Statistic = lambda means: means,
    digits: int = 3,
    shift: float = 0.0,
) -> Number:
    """The same estimate with prompts and seeds drawn too; values (sample, ...)."""
    found = evidence.crossed(values, statistic)
    value, low, high = (float(found[word]) + shift for word in ("estimate", "low", "high"))
    why = found.attrs.get(WITHOUT, "not defined where one is left out" if np.isnan(low) else "–")
    return Number(value if np.isfinite(value) else np.nan, low, high, digits, why=why)
