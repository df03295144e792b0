"""Quantities of a measured run by the names that figures, tables and verdicts share, and their words."""

import xarray as xr

from analysis.lookup import measured, setting
from analysis.saturation import Estimator, ExponentialApproach, ShareOfPlateau


def name(backbone: str) -> str:
    """A backbone's name as it is printed."""
    return backbone.replace("_", " ")


def run_name(run: xr.Dataset) -> str:
    """Backbone and step count, e.g. `pocket dev, 28 steps`."""
    steps = setting(run, "steps")
    return f"{name(setting(run, 'backbone'))}, {steps} step{'s' if steps > 1 else ''}"


def short(estimator: Estimator) -> str:
    """An estimator's name on an axis."""
    if isinstance(estimator, ShareOfPlateau):
        return f"{estimator.share:.0%} of plateau"
    if isinstance(estimator, ExponentialApproach):
        return f"{estimator.share:.0%} of a saturating fit"
    return f"broken line, {estimator.after} end"


def norm_ratio(run: xr.Dataset, stream: str = "text") -> xr.DataArray:
    """A stream's over the image's norm of the attention output, (sample, step, block); ours by definition.

    stream: `text`, which under schema 1 is text and padding together, or `padding`.
    """
    norms = measured(run, "attention_norm").sel(branch="positive")
    ratio = norms.sel(stream=stream, drop=True) / norms.sel(stream="image", drop=True)
    return ratio.assign_attrs(units="1", long_name=f"{stream} over image attention-output norm")


def contribution(run: xr.Dataset) -> xr.DataArray:
    """|alpha r| / |h| of the positive branch, (sample, step, block)."""
    return measured(run, "contribution").sel(branch="positive", drop=True)


def sharpness(run: xr.Dataset) -> xr.DataArray:
    """Variance of the Laplacian of the face in x0, (sample, step)."""
    return measured(run, "sharpness").sel(region="face", measure="laplacian", drop=True)


def null_sharpness(run: xr.Dataset) -> xr.DataArray:
    """The same of the final image, blurred to it: by construction near `sharpness`, (sample, step)."""
    return measured(run, "null_sharpness").sel(region="face", measure="laplacian", drop=True)


def contrast(run: xr.Dataset) -> xr.DataArray:
    """RMS contrast of the face in x0, (sample, step)."""
    return measured(run, "contrast").sel(region="face", drop=True)


def null_contrast(run: xr.Dataset) -> xr.DataArray:
    """The same of the final image, blurred to x0's sharpness, (sample, step)."""
    return measured(run, "null_contrast").sel(region="face", drop=True)


DISTANCES = {
    "lpips": "LPIPS",
    "perceptual_distance_pocket": "perceptual distance of the pocket recogniser",
}
"""By variable, the paper's first."""


def perceptual(run: xr.Dataset) -> str:
    """The perceptual distance that a run was measured with, LPIPS where it was with none."""
    return next((name for name in DISTANCES if name in run), "lpips")
