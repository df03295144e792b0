"""Intervals over faces, prompts and seeds, which are crossed: they generalise to other prompts and seeds.

Every face has the same prompts and the same noise, so that the effect of a prompt or a seed on all faces
does not average out over faces. An interval over faces alone takes these effects as fixed: with more
faces it narrows, and misses the values of other prompts more often.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from stepscope.analysis.bootstrap import WITHOUT, Bounds, Statistic
from stepscope.analysis.cells import CELL
from stepscope.hooks.errors import StepscopeError

Cells = Float[np.ndarray, "sample *rest"]
Levels = Mapping[str, Int[np.ndarray, "sample"]]


@dataclass(frozen=True)
class CrossedT:
    """Estimate +- Student's quantile times a standard error that sums over faces, prompts and seeds.

    Each factor contributes the jackknife variance of leaving out one of its levels. The sum counts the
    variance within cells more than once, so that the interval is slightly wide (as the pigeonhole
    bootstrap is, Owen 2007, Annals of Applied Statistics 1). Degrees of freedom are Satterthwaite's
    (1946): with three prompts they are few and the interval is wide. A factor of one level is fixed. Not
    for estimates with kinks.

    level: nominal coverage, 0 to 1.
    """

    level: float = 0.95

    def __call__(self, cells: Cells, levels: Levels, statistic: Statistic) -> Bounds:
        """The interval of `statistic` of cells (sample, ...).

        levels: of each factor, the level of each sample, from 0; `face` is one of them. statistic: of
        means over faces of the means over each face's samples, NaN left out.
        """
        estimate = np.asarray(statistic(_mean(cells, levels["face"])[None])[0])
        squares, parts = np.zeros_like(estimate), np.zeros_like(estimate)
        for level in levels.values():
            n = int(level.max()) + 1
            if n < 2:
                continue
            others = [level != k for k in range(n)]
            left_out = statistic(np.stack([_mean(cells[k], levels["face"][k]) for k in others]))
            with np.errstate(
                invalid="ignore"
            ):  # an estimate that is infinite without a level has no error
                square = (n - 1) / n * ((left_out - left_out.mean(0)) ** 2).sum(0)
            squares, parts = squares + square, parts + square**2 / (n - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            half = stats.t.ppf((1 + self.level) / 2, squares**2 / parts) * np.sqrt(squares)
        half = np.where(squares == 0, np.nan, half)
        return Bounds(estimate, estimate - half, estimate + half)


def crossed(
    values: xr.DataArray, statistic: Statistic = lambda means: means, *, level: float
) -> xr.Dataset:
    """`estimate`, `low`, `high` of a function of the mean over faces, over all factors.

    values: (sample, ...) with face, prompt, seed on `sample`, NaN where not measured. level: nominal
    coverage, 0 to 1. The attributes `drawn` and `given` name the random and the fixed factors. With
    fewer than two faces, or with one prompt and one seed, the bounds are NaN, and an attribute says why.

    Raises StepscopeError for values without samples.
    """
    if not values.sizes["sample"]:
        raise StepscopeError("no interval: there are no samples")
    levels = {word: np.unique(values[word].values, return_inverse=True)[1] for word in CELL}
    drawn = [word for word in CELL if levels[word].max() > 0]
    cells = values.transpose("sample", ...).values.astype(float)
    bounds = CrossedT(level)(cells, levels, statistic)
    why = ""
    if len(drawn) < 2 or "face" not in drawn:
        why = ", ".join(f"one {word}" for word in CELL if word not in drawn)
        bounds = Bounds(bounds.estimate, *np.full((2, *np.shape(bounds.estimate)), np.nan))
    dims = [f"out{k}" for k in range(np.ndim(bounds.estimate))]
    names = zip(("estimate", "low", "high"), bounds, strict=True)
    return xr.Dataset(
        {word: (dims, data) for word, data in names},
        attrs={
            "drawn": [f"{int(levels[word].max()) + 1} {word}s" for word in drawn],
            "given": [word for word in CELL if word not in drawn],
            "interval": repr(CrossedT(level)),
            **({WITHOUT: why} if why else {}),
        },
    )


def _mean(cells: Cells, face: Int[np.ndarray, "sample"]) -> Float[np.ndarray, "*rest"]:
    """Mean over faces of the means over their samples, NaN left out."""
    faces = np.unique(face)
    finite = np.isfinite(cells)
    member = (faces[:, None] == face).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.tensordot(member, np.where(finite, cells, 0.0), 1) / np.tensordot(
            member, finite.astype(float), 1
        )
        there = np.isfinite(each)
        return np.asarray(np.where(there, each, 0.0).sum(0) / there.sum(0))
