"""Face swaps: similarity to both people against the step from which the other face is given."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stepscope.analysis.bootstrap import Means
from stepscope.analysis.cells import face_means
from stepscope.analysis.evidence import Evidence
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.names import ANCHOR


@dataclass(frozen=True)
class Swapped:
    """Cosines (sample, point) to the first and the second person, by the step of the swap.

    The first point is the second person's own run, and the last the first person's: `at` is the number of
    steps with the first face, `at_sigma` the noise level there. same: the first person's after a swap to
    another photo of them, None where there was none.
    """

    own: xr.DataArray
    other: xr.DataArray
    same: xr.DataArray | None


def swapped(study: xr.Dataset, judge: str, lost_face: float) -> Swapped:
    """The similarities of a study of face swaps. lost_face: of an image without a face.

    Raises StepscopeError for a study without swaps to another person.
    """
    donors, parts = (study[word].values.astype(object) for word in ("donor", "part"))
    does = study["do"].values.astype(object)
    whole = (parts == ANCHOR) & (study["steps"].values.astype(object) == "")
    if not ((does == "face") & (donors == "other")).any():
        raise StepscopeError("the study swaps no face for another person's")
    final = study["edited_similarity"].sel(recogniser=judge, edited_image="final", drop=True)
    final = final.fillna(lost_face)
    last = float(study.sizes["step"])

    def along(donor: str, toward: str) -> xr.DataArray:
        rows = whole & (donors == donor), (does == "face") & (donors == donor)
        ends = (
            final.sel(toward=toward).isel(sample=rows[0]),
            final.sel(toward=toward).isel(sample=whole & (donors == "")),
        )
        inside = final.sel(toward=toward).isel(sample=rows[1])
        points = sorted(
            {
                (int(a), float(s))
                for a, s in zip(inside["at"].values, inside["at_sigma"].values, strict=True)
            }
        )
        each = [
            ends[0],
            *(inside.isel(sample=inside["at"].values == at) for at, _ in points),
            ends[1],
        ]
        first = float(study["sigma"].values[0])
        columns = np.stack([one.values for one in each], 1)
        return xr.DataArray(
            columns,
            dims=("sample", "point"),
            coords={
                **{word: ("sample", ends[1][word].values) for word in ("face", "prompt", "seed")},
                "at": ("point", [0.0, *(float(at) for at, _ in points), last]),
                "at_sigma": ("point", [first, *(sigma for _, sigma in points), 0.0]),
            },
            attrs={"units": "1", "long_name": f"cosine to the {toward} face"},
        )

    same = ((does == "face") & (donors == "same")).any()
    return Swapped(
        along("other", "own"), along("other", "donor"), along("same", "own") if same else None
    )


def crossing(found: Swapped, evidence: Evidence) -> xr.Dataset:
    """Sigma at which the mean similarity to both people is equal: `position`, `low`, `high`.

    NaN where it is equal nowhere; the bounds are NaN for too few faces.
    """
    sigma = found.own["at_sigma"].values
    difference = face_means(found.own - found.other).mean
    bounds = evidence.window_interval(difference, lambda means: equal_at(means, sigma))
    words = zip(("position", "low", "high"), bounds, strict=True)
    return xr.Dataset({word: ((), float(value)) for word, value in words})


def equal_at(means: Means, sigma: np.ndarray) -> np.ndarray:
    """Sigma of the last point at which the difference (resample, point) turns from below 0 to above.

    Linear between points; NaN where it never does.
    """
    found = np.full(len(means), np.nan)
    for row, curve in enumerate(means):
        turns = np.flatnonzero((curve[:-1] < 0) & (curve[1:] >= 0))
        if len(turns):
            k = turns[-1]
            share = -curve[k] / (curve[k + 1] - curve[k])
            found[row] = sigma[k] + share * (sigma[k + 1] - sigma[k])
    return found
