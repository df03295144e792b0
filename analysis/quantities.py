"""Quantities of a measured run that figures, tables and verdicts share, and their printed names."""

import xarray as xr

from stepscope.analysis.lookup import MissingEvidenceError, measured, setting
from stepscope.analysis.saturation import Estimator, ExponentialApproach, ShareOfPlateau


def name(backbone: str) -> str:
    """A backbone's printed name: `pocket dev` for `pocket_dev`."""
    return backbone.replace("_", " ")


def run_name(run: xr.Dataset) -> str:
    """Backbone and step count, e.g. `pocket dev, 28 steps`."""
    steps = setting(run, "steps")
    return f"{name(setting(run, 'backbone'))}, {steps} step{'s' if steps > 1 else ''}"


def short(estimator: Estimator) -> str:
    """An estimator's name on an axis, e.g. `90% of plateau`."""
    if isinstance(estimator, ShareOfPlateau):
        whole = "plateau" if estimator.origin == "zero" else "rise"
        return f"{estimator.share:.0%} of {whole}"
    if isinstance(estimator, ExponentialApproach):
        whole = "saturating fit" if estimator.origin == "zero" else "fit's rise"
        return f"{estimator.share:.0%} of a {whole}"
    return f"broken line, {estimator.after} end"


def norm_ratio(run: xr.Dataset, stream: str = "text") -> xr.DataArray:
    """Ratio (sample, step, block) of a stream's attention-output norm to the image's; our definition.

    stream: `text`, which under schema 1 includes padding, or `padding`.
    """
    norms = measured(run, "attention_norm").sel(branch="positive")
    ratio = norms.sel(stream=stream, drop=True) / norms.sel(stream="image", drop=True)
    return ratio.assign_attrs(units="1", long_name=f"{stream} over image attention-output norm")


def adapters(run: xr.Dataset) -> list[str]:
    """The adapters that add something somewhere, by `injection_adapter`.

    Before schema version 4 it is one ControlNet. Raises MissingEvidenceError where `contribution` was not
    recorded.
    """
    values = measured(run, "contribution")
    if "injection" not in values.dims:
        return ["controlnet"]
    return list(dict.fromkeys(values["injection_adapter"].values.astype(str).tolist()))


def whole_contribution(run: xr.Dataset, adapter: str) -> xr.DataArray:
    """Root mean square (sample, step) of one adapter's |alpha r| / |h| over its places, without unit.

    Of the positive branch. NaN where no place has a value. Raises MissingEvidenceError for an adapter that
    the run does not have.
    """
    known = adapters(run)
    if adapter not in known:
        raise MissingEvidenceError(f"{adapter} is not in the run, which has {' and '.join(known)}")
    values = measured(run, "contribution").sel(branch="positive", drop=True)
    axis = "injection" if "injection" in values.dims else "block"
    if axis == "injection":
        values = values.isel(injection=values["injection_adapter"].values.astype(str) == adapter)
    told = "contribution, root mean square over places"
    return ((values.astype(float) ** 2).mean(axis) ** 0.5).assign_attrs(units="1", long_name=told)


def contribution(run: xr.Dataset, adapter: str = "") -> xr.DataArray:
    """|alpha r| / |h| (sample, step, block) of what one adapter adds to the image's tokens, without unit.

    Of the positive branch. adapter: a value of `injection_adapter`; it may be left out of a run that has
    one. Raises MissingEvidenceError where there are several, or not this one.
    """
    values = measured(run, "contribution").sel(branch="positive", drop=True)
    if "injection" not in values.dims:  # before schema version 4: a ControlNet's alone
        return values
    of = values["injection_adapter"].values.astype(str)
    names = list(dict.fromkeys(of.tolist()))
    chosen = adapter or names[0]
    if chosen not in names or (len(names) > 1 and not adapter):
        raise MissingEvidenceError(
            f"{adapter or 'the one adapter'} is not in the run, which has {' and '.join(names)}"
        )
    image = values["injection_stream"].values == "image"
    values = values.isel(injection=(of == chosen) & image)
    blocks = values["injection_block"].values
    words = [f"injection{word}" for word in ("", "_adapter", "_block", "_stream")]
    return (
        values.drop_vars(words, errors="ignore")
        .rename(injection="block")
        .assign_coords(block=blocks)
    )


def sharpness(run: xr.Dataset) -> xr.DataArray:
    """Variance of the Laplacian (sample, step) of the face in x0."""
    return measured(run, "sharpness").sel(region="face", measure="laplacian", drop=True)


def contrast(run: xr.Dataset) -> xr.DataArray:
    """RMS contrast (sample, step) of the face in x0, 0 to 1."""
    return measured(run, "contrast").sel(region="face", drop=True)


def null_contrast(run: xr.Dataset) -> xr.DataArray:
    """The same (sample, step) of the blur null: the final image, blurred to the sharpness of x0."""
    return measured(run, "null_contrast").sel(region="face", drop=True)


DISTANCES = {
    "lpips": "LPIPS",
    "perceptual_distance_pocket": "perceptual distance of the pocket recogniser",
}
"""Printed names of perceptual distances, by variable; the paper's is first."""


def perceptual(run: xr.Dataset) -> str:
    """The variable of the perceptual distance that a run has; `lpips` where it has none."""
    return next((name for name in DISTANCES if name in run), "lpips")
