"""Cells, face x prompt x seed, and means over faces, with what is missing counted."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped
from scipy import stats

from stepscope.analysis.bootstrap import Interval
from stepscope.analysis.seeds import spoken_cell
from stepscope.hooks.errors import StepscopeError

CELL = ("face", "prompt", "seed")
"""Coordinates on `sample` that name a cell; faces are the clusters that intervals resample."""


class FaceMeans(NamedTuple):
    """Means over the detected samples of each face; NaN where the face has none."""

    faces: Shaped[np.ndarray, "face"]
    mean: Float[np.ndarray, "face *rest"]
    detected: Int[np.ndarray, "face *rest"]


def cell_keys(values: xr.DataArray) -> list[tuple]:
    """One (face, prompt, seed) per sample.

    Raises StepscopeError if `values` has no `sample` dimension, lacks one of the three coordinates,
    or has a cell twice: that is a mixture of conditions, of which one has to be selected first.
    """
    if "sample" not in values.dims:
        raise StepscopeError(f"{_name(values)} has dimensions {values.dims}, but no 'sample'")
    for word in CELL:
        if word not in values.coords or values[word].dims != ("sample",):
            raise StepscopeError(f"{_name(values)} has no coordinate {word!r} on 'sample'")
    keys = list(zip(*(values[word].values.tolist() for word in CELL), strict=True))
    if len(set(keys)) < len(keys):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise StepscopeError(
            f"{_name(values)} has the cell {spoken_cell(*twice)} twice, a mixture of conditions: select "
            "one first, e.g. with .where(..., drop=True)"
        )
    return keys


def face_means(values: xr.DataArray) -> FaceMeans:
    """Mean over each face's samples of `values` (sample, ...), leaving out NaN (not detected)."""
    cell_keys(values)
    faces, index = np.unique(values["face"].values, return_inverse=True)
    array = values.transpose("sample", ...).values.astype(float)
    member = (np.arange(len(faces))[:, None] == index).astype(float)
    found = np.isfinite(array)
    detected = np.tensordot(member, found, 1)
    total = np.tensordot(member, np.where(found, array, 0.0), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return FaceMeans(faces, total / detected, detected.round().astype(int))


def average(values: xr.DataArray, interval: Interval) -> xr.Dataset:
    """Mean over faces of the mean over each face's detected samples, with its interval and counts.

    values: (sample, ...), NaN where not measured or no face was found. Variables: `mean`, `low`,
    `high` in the unit of `values`, NaN where no face (for the bounds: fewer than two) was
    detected; `detected` samples and `faces` that the mean stands on.
    """
    faces = face_means(values)
    rest = values.isel(sample=0, drop=True)
    bounds = interval(faces.mean, lambda means: means)
    units = {"units": values.attrs.get("units", "1")}
    what = values.attrs.get("long_name", values.name or "value")
    told = {
        "mean": (bounds.estimate, {"long_name": f"mean over faces of {what}", **units}),
        "low": (bounds.low, {"long_name": "lower bound of the mean's interval", **units}),
        "high": (bounds.high, {"long_name": "upper bound of the mean's interval", **units}),
        "detected": (faces.detected.sum(0), {"long_name": "samples in the mean", "units": "1"}),
        "faces": ((faces.detected > 0).sum(0), {"long_name": "faces in the mean", "units": "1"}),
    }
    return xr.Dataset(
        {word: (rest.dims, data, attrs) for word, (data, attrs) in told.items()},
        coords=rest.coords,
        attrs={"interval": repr(interval), "samples": values.sizes["sample"]},
    )


BELIEVED, WEIGHT = 0.3, 4
"""How alike the samples of one face are believed to be before any was seen, as an intraclass
correlation, and as on how many faces' evidence: chosen by simulation, `tests/bench/detection.py`."""


def detection_rate(values: xr.DataArray, *, level: float = 0.95) -> xr.Dataset:
    """Share of samples in which a face was found (not NaN), with its interval; 0 to 1.

    values: (sample, ...), where every cell was measured. `rate` is the mean over faces; `low` and
    `high` are Wilson's (1927) score interval at the effective sample size: samples over the design
    effect, times the squared ratio of the normal quantile to Student's for the faces (Korn &
    Graubard 1998, Survey Methodology 24; with Wilson's interval as Dean & Pagano 2015). A few faces
    tell their own design effect badly, and not at all where each was found in every sample: it is
    the mean, by faces, of what they show and of what samples with a correlation BELIEVED would
    have, which counts as WEIGHT faces (ours); where all have one rate it is the latter alone. No
    interval knows of faces that are never found and not in the study.
    """
    found = face_means(values.notnull().astype(float))
    faces, samples = len(found.faces), values.sizes["sample"]
    if faces < 2:
        raise StepscopeError(f"an interval over faces needs at least 2 faces, got {faces}")
    rate, spread = found.mean.mean(0), found.mean.var(0, ddof=1)
    each = samples / faces
    believed = 1 + (each - 1) * BELIEVED
    with np.errstate(invalid="ignore", divide="ignore"):
        shown = each * spread / (rate * (1 - rate))
    mixed = ((faces - 1) * shown + WEIGHT * believed) / (faces - 1 + WEIGHT)
    # Rounding leaves a trace of equal rates.
    effect = np.maximum(np.where(spread > 1e-12, mixed, believed), 1.0)
    tail = (1 + level) / 2
    z = stats.norm.ppf(tail)
    n = samples / effect * (z / stats.t.ppf(tail, faces - 1)) ** 2
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    rest = values.isel(sample=0, drop=True)
    told = {"rate": rate, "low": np.maximum(centre - half, 0), "high": np.minimum(centre + half, 1)}
    attrs = {"units": "1", "long_name": "share of samples with a face"}
    return xr.Dataset(
        {word: (rest.dims, data, attrs) for word, data in told.items()},
        coords=rest.coords,
        attrs={"level": level, "faces": faces, "samples": samples},
    )


def _name(values: xr.DataArray) -> str:
    return repr(values.name) if values.name is not None else "the array"
