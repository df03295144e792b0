"""Paired effects: one condition against another in the same face x prompt x seed."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from stepscope.analysis.bootstrap import Interval
from stepscope.analysis.cells import FaceMeans, cell_keys, face_means
from stepscope.analysis.power import noncentrality
from stepscope.analysis.seeds import spoken_cell
from stepscope.hooks.errors import StepscopeError


class Components(NamedTuple):
    """Variance of paired differences, between and within faces (one-way random effects)."""

    between: Float[np.ndarray, "*rest"]
    within: Float[np.ndarray, "*rest"]


class Pairs(NamedTuple):
    """Two arrays cut to their common cells, in one order, and how many cells had no partner."""

    baseline: xr.DataArray
    changed: xr.DataArray
    unpaired_baseline: int
    unpaired_changed: int


def pair(baseline: xr.DataArray, changed: xr.DataArray) -> Pairs:
    """Join two arrays (sample, ...) by cell; their other dimensions must agree exactly.

    Raises StepscopeError if no cell is in both, a cell is in one of them twice, or the points
    differ (compare endpoints of runs with different numbers of steps: `.isel(step=-1)`).
    """
    first = {key: i for i, key in enumerate(cell_keys(baseline))}
    second = {key: i for i, key in enumerate(cell_keys(changed))}
    common = [key for key in first if key in second]
    if not common:
        raise StepscopeError(
            f"no face x prompt x seed is in both: e.g. {_first(first)} in the baseline, "
            f"{_first(second)} in the changed condition"
        )
    a = baseline.isel(sample=[first[key] for key in common])
    b = changed.isel(sample=[second[key] for key in common]).transpose(*a.dims)
    for dim in a.dims[1:] if a.dims[0] == "sample" else [d for d in a.dims if d != "sample"]:
        if a.sizes[dim] != b.sizes[dim] or not np.array_equal(a[dim].values, b[dim].values):
            raise StepscopeError(
                f"the two conditions have different points on {dim!r} ({a.sizes[dim]} and "
                f"{b.sizes[dim]}): compare endpoints, e.g. .isel({dim}=-1)"
            )
    return Pairs(a, b, len(first) - len(common), len(second) - len(common))


def _first(cells: Iterable[tuple[str, str, int]]) -> str:
    """The first of some cells in words."""
    return next((spoken_cell(*cell) for cell in cells), "nothing")


def difference(baseline: xr.DataArray, changed: xr.DataArray) -> xr.DataArray:
    """Changed minus baseline (sample, ...) in every cell that both have; NaN where one is missing."""
    pairs = pair(baseline, changed)
    a, b = pairs.baseline, pairs.changed
    return b.astype(float).copy(data=b.values.astype(float) - a.values.astype(float))


def compare(
    baseline: xr.DataArray, changed: xr.DataArray, interval: Interval, *, p_value: bool = False
) -> xr.Dataset:
    """Mean of changed minus baseline over faces, paired by cell, with effect size and counts.

    baseline, changed: (sample, ...) with face, prompt, seed on `sample`, NaN where no face was
    found. A pair needs both; pairs that lack one are counted (`missing_baseline`,
    `missing_changed`), as are cells without a partner (`unpaired_baseline`, `unpaired_changed`).
    `effect`, `low`, `high` in the unit of the input, each face with the same weight. `d_z`: effect
    over the standard deviation of one pair's difference (Lakens 2013), with the unbiased variance
    and no further correction; its bounds are those of the noncentrality of the t test over faces, at
    the same level and with the ratio of the two deviations as it was found, so that they leave out
    0 where Student's interval of the effect does. `face_sd`: standard deviation of the means per
    face; `between_sd`, `within_sd`, `icc`, `design_effect`: the components of a pair's variance,
    see `components`. p_value: add `p_value`, two-sided, of Student's t test on the means per face,
    for no effect in the mean; not adjusted for the number of tests. Prompts and seeds are taken as
    given: the intervals generalise to other faces, `crossed` also to other prompts and seeds.
    """
    pairs = pair(baseline, changed)
    a, b = pairs.baseline, pairs.changed
    change = difference(a, b)
    faces = face_means(change)
    effect = interval(faces.mean, lambda means: means)
    size = _standardised(change, faces, getattr(interval, "level", np.nan))
    parts = components(change)
    found = faces.detected.sum(0)
    units = baseline.attrs.get("units", "1")
    told = {
        "effect": (effect.estimate, units, "mean over faces of changed minus baseline"),
        "low": (effect.low, units, "lower bound of the effect"),
        "high": (effect.high, units, "upper bound of the effect"),
        "d_z": (size.estimate, "1", "effect over the standard deviation of one pair's difference"),
        "d_z_low": (size.low, "1", "lower bound of d_z"),
        "d_z_high": (size.high, "1", "upper bound of d_z"),
        "pairs": (found, "1", "pairs with both values"),
        "faces": ((faces.detected > 0).sum(0), "1", "faces with a pair"),
        "face_sd": (size.face_sd, units, "SD over faces of the mean difference"),
        "missing_baseline": (np.isnan(a.values).sum(0), "1", "pairs whose baseline is missing"),
        "missing_changed": (np.isnan(b.values).sum(0), "1", "pairs whose changed value is missing"),
        "between_sd": (np.sqrt(parts.between), units, "SD of the difference between faces"),
        "within_sd": (np.sqrt(parts.within), units, "SD of the difference within a face"),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        icc = parts.between / (parts.between + parts.within)
        per_face = found / (faces.detected > 0).sum(0)
    told["icc"] = (icc, "1", "intraclass correlation of the differences of one face")
    told["design_effect"] = (1 + (per_face - 1) * icc, "1", "variance over that of free pairs")
    if p_value:
        p = stats.ttest_1samp(faces.mean, 0.0, nan_policy="omit")[1]
        told["p_value"] = (np.asarray(p), "1", "two-sided t test over faces, unadjusted")
    rest = change.isel(sample=0, drop=True)
    result = xr.Dataset(
        {
            word: (rest.dims, data, {"units": unit, "long_name": meaning})
            for word, (data, unit, meaning) in told.items()
        },
        coords=rest.coords,
        attrs={"interval": repr(interval), "estimand": "mean over faces of paired differences"},
    )
    for word in ("unpaired_baseline", "unpaired_changed"):
        attrs = {"units": "1", "long_name": "cells without a partner: " + word.split("_")[1]}
        result[word] = xr.DataArray(getattr(pairs, word), attrs=attrs)
    return result


def components(difference: xr.DataArray) -> Components:
    """Variance between and within faces of values (sample, ...), by one-way analysis of variance.

    Unbalanced faces as in Searle, Casella & McCulloch (1992), Variance Components; a
    negative variance between faces is reported as 0. Both NaN with fewer than two faces or no face
    with two values: one pair a face cannot tell them apart.
    """
    means = face_means(difference)
    squares = face_means(difference**2).mean
    n = means.detected
    total, faces = n.sum(0), (n > 0).sum(0)
    mean = np.where(n > 0, means.mean, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = (np.where(n > 0, n * (squares - means.mean**2), 0.0)).sum(0) / (total - faces)
        grand = (n * mean).sum(0) / total
        across = (n * (mean - grand) ** 2).sum(0) / (faces - 1)
        size = (total - (n**2).sum(0) / total) / (faces - 1)
        return Components(np.maximum((across - inside) / size, inside * 0), inside)


class _Size(NamedTuple):
    """d_z and its bounds, and the standard deviation over faces of the mean difference."""

    estimate: Float[np.ndarray, "*rest"]
    low: Float[np.ndarray, "*rest"]
    high: Float[np.ndarray, "*rest"]
    face_sd: Float[np.ndarray, "*rest"]


def _standardised(difference: xr.DataArray, faces: FaceMeans, level: float) -> _Size:
    squares = face_means(difference**2).mean
    found = np.isfinite(faces.mean)
    n = found.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, square = (np.where(found, v, 0.0).sum(0) / n for v in (faces.mean, squares))
        spread = (np.where(found, faces.mean - mean, 0.0) ** 2).sum(0) / (n - 1)
        # E[mean^2] = mu^2 + variance of the mean over faces, which is taken back.
        deviation = np.sqrt(square - mean**2 + spread / n)
        error = np.sqrt(spread / n)
        t = np.asarray(mean / error)
    ends = np.full((2, *t.shape), np.nan)
    if np.isfinite(level):
        ends = noncentrality(t, np.asarray(n - 1.0), level=level) * error / deviation
    return _Size(mean / deviation, ends[0], ends[1], np.sqrt(spread))
