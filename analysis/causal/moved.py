"""Identity (or likeness to a picture) moved by an edit: a share of the way between runs of the same noise.

kept: (m_edited - m_B) / (m_A - m_B) with m the similarity to the sample's own face, A the sample itself and
B its donor's run: 1 where the edit changes nothing, 0 where it undoes the face as B does (necessity).
gained: (m_edited - m_A) / (m_B - m_A) with m the similarity to the donor's face: 0 where nothing of the
donor is there, 1 where as much is as in the donor's own run (sufficiency).
Of clamped images, A and B are the recorded x0 of the two runs at the edited step.
Both are ratios of means over faces, with Fieller's interval, and blank where m_A - m_B does not differ from
0. An image without a face counts with the similarity of two strangers, `lost_face`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.bootstrap import WITHOUT
from stepscope.analysis.causal.max_t import MaxT
from stepscope.analysis.cells import CELL as SAMPLE
from stepscope.analysis.cells import FaceMeans, face_means
from stepscope.analysis.ratio import NOT_ABOVE_ZERO, ratio
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.names import ANCHOR, BEFORE, CLIP, OBEYED

CELL = ("part", "donor", "do", "steps", "at", "at_sigma", "blocks", "at_block")
"""Coordinates that say which intervention a sample had."""
Cell = tuple[Any, ...]
TOWARD = ("own", "donor")
LIKENESSES = (
    "edited_reference_dinov2",
    "edited_reference_clip",
    "edited_reference_look_pocket",
    "edited_reference_hat_pocket",
    "edited_style_gram",
)
"""Likenesses to a picture by which effects can be counted; the first that was measured is the judge."""
NOTHING = xr.Dataset({"ratio": np.nan, "low": np.nan, "high": np.nan})
ANCHOR_OF = {"": "off", "random": "other", "same": "other"}
"""The donor whose run an intervention's effect is counted to, where it is not its own donor's.

With another photo of the same person nobody is moved to: what is lost is counted on the way to the other
person, and `gained` is NaN.
"""


@dataclass(frozen=True)
class Moved:
    """How effects are counted. judge: recogniser; lost_face: cosine of an image without a face.

    judge may also name a variable (sample) of likeness to the reference image, one of LIKENESSES: no image
    lacks it, and it knows no donor, so that `gained` is NaN.
    level: nominal coverage of each interval, 0 to 1. image: `final`, or `clamped`, x0 at the edited step.
    """

    judge: str
    lost_face: float = 0.0
    level: float = 0.95
    image: str = "final"

    def __call__(self, study: xr.Dataset, part: str) -> xr.Dataset:
        """Effects of every intervention of a part, along `cell`.

        study: a measured run of edited samples. Variables: `kept` and `gained` with `_low` and `_high`, NaN
        where they are blank; `lift`, the mean of m_A - m_B; `change`, the mean difference in similarity to
        the own face, and `p` of it by max-T over the part's cells; `outside`, mean difference outside the
        face; `obeyed`, mean change of the prompt's score, NaN where it was not measured; `found`, share of
        images with a face; `faces`.
        Raises StepscopeError for a part that the study does not have.
        """
        names = study["part"].values.astype(object)
        if part not in names or part == ANCHOR:
            known = [n for n in dict.fromkeys(names.tolist()) if n != ANCHOR]
            raise StepscopeError(f"no part {part!r}; the study has {', '.join(known)}")
        values = self._values(study)
        edited = values.isel(sample=names == part)
        if not np.isfinite(edited["to_own"]).any():
            raise StepscopeError(f"part {part!r} has no {self.image} images")
        cells: dict[Cell, list[int]] = {}
        for sample, cell in enumerate(zip(*(edited[c].values.tolist() for c in CELL), strict=True)):
            cells.setdefault(cell, []).append(sample)
        own_donor = str(next(iter(cells))[1])
        whole = values["steps"].values.astype(object) == ""
        anchors = values.isel(sample=(names == ANCHOR) & (whole == (self.image == "final")))
        known = anchors["donor"].values.tolist()
        donor = ANCHOR_OF.get(own_donor, own_donor)
        donor = donor if donor in known else own_donor
        similar, rest = (
            _similar(edited),
            {n: edited[n].values for n in ("outside", "obeyed", "found")},
        )
        anchor = cache(partial(self._anchor, anchors, _similar(anchors)))
        rows = []
        for cell, mine in cells.items():
            ends = (anchor(d, self._step(cell)) for d in ("", donor))
            means = {name: _mean(values[mine]) for name, values in rest.items()}
            rows.append(self._cell(similar.isel(sample=mine), *ends) | means)
        if own_donor == "same":
            rows = [
                row | dict.fromkeys(("gained", "gained_low", "gained_high"), np.nan) for row in rows
            ]
        differences = np.stack([row.pop("differences") for row in rows], 1)
        p = MaxT()(differences) if len(differences) > 1 else np.full(len(rows), np.nan)
        table = {name: ("cell", np.array([row[name] for row in rows])) for name in rows[0]}
        where = {
            name: ("cell", _array(column))
            for name, column in zip(CELL, zip(*cells, strict=True), strict=True)
        }
        return xr.Dataset(
            {**table, "p": ("cell", p)},
            coords=where,
            attrs={"part": part, "toward": donor, "image": self.image, "judge": self.judge},
        )

    def _values(self, study: xr.Dataset) -> xr.Dataset:
        """Similarity to the own and the donor's face of every sample, `outside` and `found`."""
        if self.judge in LIKENESSES:
            return self._likeness(study)
        chosen = study.sel(recogniser=self.judge).sel(edited_image=self.image, drop=True)
        there, found = chosen["edited_found"].values != 0, {}
        for toward in TOWARD:
            some = chosen["edited_similarity"].sel(toward=toward, drop=True)
            found[f"to_{toward}"] = some.fillna(self.lost_face).where(there)
        flags = chosen["edited_face_found"]
        return _labelled(study, {**found, "outside": study["edited_outside"], "found": flags})

    def _likeness(self, study: xr.Dataset) -> xr.Dataset:
        """The same of likeness to the reference image, of the final images; of a distance, minus it."""
        values = study[self.judge].astype(float)
        values = (
            -values if study[self.judge].attrs.get("direction") == "lower is better" else values
        )
        nothing, there = xr.full_like(values, np.nan), xr.ones_like(values)
        final = values if self.image == "final" else nothing
        outside = study.get("edited_outside", nothing)
        return _labelled(
            study, {"to_own": final, "to_donor": nothing, "outside": outside, "found": there}
        )

    def _step(self, cell: Cell) -> Any:
        """The step of the x0 that a clamped image shows; None of final images, which all runs have."""
        return cell[CELL.index("at")] if self.image == "clamped" else None

    def _anchor(
        self, anchors: xr.Dataset, similar: xr.DataArray, donor: str, step: Any
    ) -> FaceMeans:
        """Means of a donor's samples that effects are counted from or to; of clamped ones, at a step."""
        mine = anchors["donor"].values.astype(object) == donor
        if step is not None:
            mine &= anchors["at"].values == step
        return face_means(similar.isel(sample=mine))

    def _cell(self, similar: xr.DataArray, a: FaceMeans, b: FaceMeans) -> dict[str, Any]:
        """An intervention's effects, of its samples (sample, toward) and of both runs' means."""
        edited = face_means(similar)
        own, donor = edited.mean.T
        (a_own, a_donor), (b_own, b_donor) = (_of_faces(end, edited.faces).T for end in (a, b))
        kept = ratio(own - b_own, a_own - b_own, level=self.level)
        known = np.isfinite(donor - a_donor).any()
        gained = ratio(donor - a_donor, b_donor - a_donor, level=self.level) if known else NOTHING
        return {
            **_said("kept", kept),
            **_said("gained", gained),
            "change": float((own - a_own).mean()),
            "lift": float((a_own - b_own).mean()),
            "own": float(own.mean()),
            "toward_donor": float(donor.mean()),
            "faces": len(edited.faces),
            "differences": own - a_own,
        }


def _labelled(study: xr.Dataset, values: Mapping[str, xr.DataArray]) -> xr.Dataset:
    """Values (sample) with what says which intervention each sample had, and how it obeys its prompt."""
    keep = [*CELL, "face", "prompt", "seed"]
    made = xr.Dataset(
        {**values, "obeyed": _obeyed(study)}, coords={name: study[name] for name in keep}
    )
    return made.drop_vars([n for n in study.coords if n not in (*keep, "sample")], errors="ignore")


def _obeyed(study: xr.Dataset) -> xr.DataArray:
    """Change of the score of prompt and image, by the first that was measured; else NaN (sample,)."""
    for name in (OBEYED, CLIP):
        if name in study:
            return (study[name] - study[name + BEFORE]).astype(float)
    return xr.zeros_like(study["sample"], float) * np.nan


def _said(name: str, share: xr.Dataset) -> dict[str, float]:
    """A share with its bounds, blank where there is nothing to divide by."""
    blank = share.attrs.get(WITHOUT) == NOT_ABOVE_ZERO
    words = {"": "ratio", "_low": "low", "_high": "high"}
    return {name + end: np.nan if blank else float(share[word]) for end, word in words.items()}


def _similar(samples: xr.Dataset) -> xr.DataArray:
    """Similarity (sample, toward) to the own and the donor's face, with the coordinates of a cell alone."""
    both = np.stack([samples[f"to_{word}"].values for word in TOWARD], -1)
    where = {name: ("sample", samples[name].values) for name in SAMPLE}
    return xr.DataArray(both, dims=("sample", "toward"), coords=where)


def _of_faces(means: FaceMeans, faces: np.ndarray) -> np.ndarray:
    """Means (face, toward) of these faces, in their order."""
    known = means.faces.tolist()
    return means.mean[[known.index(face) for face in faces.tolist()]]


def _mean(values: np.ndarray) -> float:
    """Of those that were measured; NaN of none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else np.nan


def _array(column: tuple[Any, ...]) -> np.ndarray:
    return np.array(column, dtype=object if isinstance(column[0], str) else None)


def every_part(study: xr.Dataset, how: Moved) -> Mapping[str, xr.Dataset]:
    """The effects of every part of a study that has the image."""
    names = dict.fromkeys(study["part"].values.astype(object).tolist())
    return {name: how(study, name) for name in names if name != ANCHOR}
