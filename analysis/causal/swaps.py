"""Face swaps: similarity to both people against the step from which the other face is given."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stepscope.analysis.bootstrap import Means
from stepscope.analysis.cells import face_means
from stepscope.analysis.evidence import Evidence
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.names import ANCHOR
from stepscope.probes.interventions.windows import SHUFFLED


@dataclass(frozen=True)
class Swapped:
    """Cosines (sample, point) to the first and the second person, by the step of the swap.

    `at` of a point is the number of steps with the first face, `at_sigma` the noise level after them. The
    last point is the first person's run, and the first the second person's. Controls, each None where it
    was not made: photo, a swap to another photo of the first person, and of that person alone; random, to a
    face in a random direction, without the first point; shuffled, with the second face in as many steps at
    random places.
    """

    own: xr.DataArray
    other: xr.DataArray
    photo: xr.DataArray | None
    random: tuple[xr.DataArray, xr.DataArray] | None
    shuffled: tuple[xr.DataArray, xr.DataArray] | None


def swapped(study: xr.Dataset, judge: str, lost_face: float) -> Swapped:
    """The similarities of a study of face swaps. lost_face: of an image without a face.

    Raises StepscopeError for a study without swaps to another person.
    """
    final = study["edited_similarity"].sel(recogniser=judge, edited_image="final", drop=True)
    curves = _Curves(study, final.fillna(lost_face))
    if not curves.made("other"):
        raise StepscopeError("the study swaps no face for another person's")

    def both(donor: str, steps: str = "from") -> tuple[xr.DataArray, xr.DataArray] | None:
        if not curves.made(donor, steps):
            return None
        return curves.along(donor, "own", steps), curves.along(donor, "donor", steps)

    return Swapped(
        curves.along("other", "own"),
        curves.along("other", "donor"),
        curves.along("same", "own") if curves.made("same") else None,
        both("random"),
        both("other", SHUFFLED),
    )


@dataclass(frozen=True)
class _Curves:
    """Cosines (sample, toward) of a study's final images, and how they are laid along the swap's step."""

    study: xr.Dataset
    final: xr.DataArray

    def _rows(self, **wanted: str) -> np.ndarray:
        held = (self.study[word].values.astype(object) == value for word, value in wanted.items())
        return np.logical_and.reduce([*held])

    def made(self, donor: str, steps: str = "from") -> bool:
        return bool(self._rows(do="face", donor=donor, steps=steps).any())

    def along(self, donor: str, toward: str, steps: str = "from") -> xr.DataArray:
        """Similarity (sample, point) to `own` or `donor` of one kind of swap."""
        sigma, last = self.study["sigma"].values, self.study.sizes["step"]
        values = self.final.sel(toward=toward)
        edited = values.isel(sample=self._rows(do="face", donor=donor, steps=steps))
        # shuffled: named after how many steps have the second face
        kept = last - edited["at"].values if steps == SHUFFLED else edited["at"].values
        points = {int(k): edited.isel(sample=kept == k) for k in sorted({*kept.tolist()})}
        for k, whose in ((0, donor), (last, "")):
            whole = self._rows(part=ANCHOR, steps="", donor=whose)
            if whole.any():
                points[k] = values.isel(sample=whole)
        columns = dict(sorted(points.items()))
        own = points[last]
        return xr.DataArray(
            np.stack([one.values for one in columns.values()], 1),
            dims=("sample", "point"),
            coords={
                **{word: ("sample", own[word].values) for word in ("face", "prompt", "seed")},
                "at": ("point", [float(k) for k in columns]),
                "at_sigma": ("point", [float([*sigma, 0.0][k]) for k in columns]),
            },
            attrs={"units": "1", "long_name": f"cosine to the {toward} face"},
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
