"""Curves of likeness to the reference image, for adapters that are given a picture and not a face."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import curve
from stepscope.analysis.figures.style import LOOKS, Look
from stepscope.analysis.lookup import measured
from stepscope.analysis.saturation import BrokenLine, Estimator, ExponentialApproach, ShareOfPlateau
from stepscope.analysis.windows import Against

COSINES = {
    "reference_dinov2": "DINOv2",
    "reference_clip": "CLIP",
    "reference_look_pocket": "pocket judge of looks",
    "reference_hat_pocket": "pocket judge of hats",
}
"""Measures of likeness by their printed names: cosines of a final image to the reference image."""
DISTANCES = {"style_gram": "Gram distance"}
"""Measures that fall as likeness rises."""
STEP = "_step"
"""After the name of such a measure: that of the step's x0."""
LOOK_OF: Mapping[str, Look] = dict(zip(COSINES.values(), LOOKS[3:], strict=False))


def has_no_face(run: xr.Dataset) -> bool:
    """Whether a run was measured along its steps by likeness to a picture, and not to a face."""
    return "similarity" not in run and any(f"{name}{STEP}" in run for name in COSINES)


def final(run: xr.Dataset) -> xr.DataArray:
    """The first cosine (sample) that was measured of final images. Raises MissingEvidenceError for none."""
    return measured(run, next((name for name in COSINES if name in run), next(iter(COSINES))))


def along(run: xr.Dataset) -> dict[str, xr.DataArray]:
    """The cosines (sample, step) of a run that were measured, by their printed names."""
    return {
        label: run[f"{name}{STEP}"] for name, label in COSINES.items() if f"{name}{STEP}" in run
    }


def draw_along(
    evidence: Evidence, axes: Axes, run: xr.Dataset, against: Against
) -> dict[str, xr.DataArray]:
    """Draw the cosines of a run, at steps of finite `against`; returns them (sample, step) by name."""
    here = np.isfinite(run[against].values)
    curves = {label: values.isel(step=here) for label, values in along(run).items()}
    for label, values in curves.items():
        curve(axes, values[against].values, evidence.average(values), LOOK_OF[label], label)
    return curves


def rising(values: xr.DataArray, name: str) -> xr.DataArray:
    """A measure (sample, step) as what rises: a distance as its fall since the first step."""
    return values.isel(step=0, drop=True) - values if name in DISTANCES else values


def gain(values: xr.DataArray, name: str, dim: str = "step") -> xr.DataArray:
    """How much nearer (sample) to the picture the last point of a measure is than its first."""
    change = values.isel({dim: -1}, drop=True) - values.isel({dim: 0}, drop=True)
    return -change if name in DISTANCES else change


def comes_nearer(evidence: Evidence, values: xr.DataArray, name: str) -> bool:
    """Whether a measure (sample, step) surely comes nearer: of others no end is told."""
    return values.sizes["step"] > 1 and bool(evidence.average(gain(values, name))["low"] > 0)


def estimators(share: float) -> tuple[Estimator, ...]:
    """Where such a curve ends to rise, from its first value on: unlike pictures have no cosine of 0."""
    return (
        ShareOfPlateau(share, origin="first"),
        BrokenLine(after="flat"),
        ExponentialApproach(share, origin="first"),
    )


def finite(x: np.ndarray, mean: xr.Dataset) -> tuple[np.ndarray, xr.Dataset]:
    """The points (step) of a mean curve at which x is a number."""
    here = np.isfinite(x)
    return x[here], mean.isel(step=here)


def names_of(runs: Sequence[xr.Dataset], measures: Mapping[str, str]) -> dict[str, str]:
    """The measures that a run has, of its final image or of its steps."""
    return {
        name: label
        for name, label in measures.items()
        if any(name in run or f"{name}{STEP}" in run for run in runs)
    }
