"""Simultaneous bands: intervals that hold a whole mean curve, not only each of its points."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from stepscope.analysis.cells import face_means
from stepscope.hooks.errors import StepscopeError


@dataclass(frozen=True)
class Band:
    """Mean +- a multiple of its standard error over faces that covers all points at once.

    The multiple is the quantile of the largest |t| over the points in simulated normal studies with as
    many faces and the measured correlation between points: the studentised parametric bootstrap. A
    multiplier bootstrap without studentising covers 55 % for 6 faces.

    level: nominal coverage of the whole curve, 0 to 1. resamples: number of simulated studies; seed:
    theirs.
    """

    level: float = 0.95
    resamples: int = 1999
    seed: int = 0

    def __call__(self, values: xr.DataArray) -> xr.Dataset:
        """`mean`, `low`, `high` (...) over faces of values (sample, ...), in their unit.

        The bounds are NaN at a point with fewer than two faces. Raises StepscopeError for a single face.
        """
        faces = face_means(values).mean
        if len(faces) < 2:
            raise StepscopeError(f"a band over faces needs at least 2 faces, got {len(faces)}")
        finite = np.isfinite(faces)
        count = finite.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(finite, faces, 0.0).sum(0) / count
            deviation = np.where(finite, faces - mean, 0.0)
            spread = np.sqrt((deviation**2).sum(0) / np.maximum(count - 1, 0))
            half = self.multiple(deviation) * spread / np.sqrt(count)
        rest = values.isel(sample=0, drop=True)
        units = {"units": values.attrs.get("units", "1")}
        half = np.where(count > 1, half, np.nan)
        bounds = {"mean": mean, "low": mean - half, "high": mean + half}
        return xr.Dataset(
            {word: (rest.dims, data, units) for word, data in bounds.items()},
            coords=rest.coords,
            attrs={"interval": repr(self), "samples": values.sizes["sample"]},
        )

    def multiple(self, deviation: Float[np.ndarray, "face *rest"]) -> float:
        """Quantile of the largest |t|; deviation: from the mean over faces, 0 where not measured."""
        n, flat = len(deviation), deviation.reshape(len(deviation), -1)
        scale = np.sqrt((flat**2).sum(0))
        flat = flat[:, scale > 0] / scale[scale > 0]
        if not flat.size:
            return 0.0
        rng, largest = np.random.default_rng(self.seed), np.empty(self.resamples)
        for k in range(self.resamples):
            study = rng.normal(size=(n, n)) @ flat
            largest[k] = np.abs(study.mean(0) / study.std(0, ddof=1)).max()
        return float(np.sqrt(n) * np.quantile(largest, self.level))
