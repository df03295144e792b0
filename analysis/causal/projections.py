"""How far held-out activations differ along a learned direction, over steps and blocks.

of_adapter: a sample's mean activation with the adapter minus the one without it at the same x_t, along the
direction that was learned from other people. of_face: a person's minus the mean of everybody else's with
the same prompt and seed, along the direction that was learned from other samples of those people.
Both in units of the sample's norm at the site and step: 0 where the direction says nothing of the sample.
Directions are of all image tokens together.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from stepscope.analysis.causal.max_t import MaxT
from stepscope.analysis.cells import face_means
from stepscope.probes.grid import Cell
from stepscope.probes.interventions.directions import Directions, read_directions
from stepscope.probes.interventions.names import ACTIVATIONS

ROUNDING = 1e-5
"""Of the norm at a site: a shorter direction is none, as where every sample has the same values."""
KINDS = {"of_adapter": "adapter", "of_face": "face"}
"""Variables, and the directions that they are along."""
HELD_OUT = "held_out"
"""The attribute that says what no sample shares with those that its direction is learned from."""


def projections(study: Path) -> xr.Dataset:
    """Of every sample that directions were learned from, its difference along them, (learned, step, site).

    study: the folder of a causal study with steered parts. A cell is NaN where a direction has no length.
    Raises RunError where the study has no directions.
    """
    path = study / ACTIVATIONS
    directions = read_directions(path, pooled=True)
    stored = xr.open_zarr(path, chunks=None)
    norm = stored["activation_norm"].sel(adapter_state="on").values
    columns = (directions.face, directions.prompt, directions.seed)
    cells = [
        Cell(i, *key) for i, key in enumerate(zip(*(c.tolist() for c in columns), strict=True))
    ]
    means, found = directions.means[..., 0, :], dict[str, np.ndarray]()
    for name, along in KINDS.items():
        units = np.stack([unit(directions, along, cell, norm.mean(0)) for cell in cells])
        if name == "of_adapter":
            difference = means[:, 0] - means[:, 1]
        else:
            difference = np.stack([unlike(directions, means[:, 0], cell) for cell in cells])
        with np.errstate(
            invalid="ignore", divide="ignore"
        ):  # an adapter that is off has a norm of 0
            found[name] = (difference * units).sum(-1) / norm
    return xr.Dataset(
        {name: (("sample", "learned_step", "site"), values) for name, values in found.items()},
        coords={
            **{w: ("sample", c) for w, c in zip(("face", "prompt", "seed"), columns, strict=True)},
            "learned_step": stored["learned_step"].values,
            "learned_sigma": ("learned_step", directions.sigma),
            "site": list(directions.sites),
        },
        attrs={HELD_OUT: list(directions.held_out)},
    )


def unit(
    of: Directions, along: str, cell: Cell, norm: Float[np.ndarray, "step site"]
) -> Float[np.ndarray, "step site channel"]:
    """The direction for a sample, of length 1; NaN where it has none. norm: of samples at the site."""
    vectors = of.learned(along, cell)[..., 0, :]
    length = np.linalg.norm(vectors, axis=-1)
    length[length <= ROUNDING * norm] = np.nan
    return vectors / length[..., None]


def unlike(
    of: Directions, means: Float[np.ndarray, "sample step site channel"], cell: Cell
) -> Float[np.ndarray, "step site channel"]:
    """A sample's mean activation minus that of everybody else with its prompt and seed."""
    same = (of.prompt == cell.prompt) & (of.seed == cell.seed) & (of.face != cell.face)
    return means[cell.index] - means[same].mean(0)


@dataclass(frozen=True)
class Map:
    """A projection over steps and blocks: mean over faces, and which cells differ from 0 (max-T)."""

    mean: Float[np.ndarray, "site step"]
    survives: Bool[np.ndarray, "site step"]
    sites: tuple[str, ...]
    steps: tuple[int, ...]


def mapped(found: xr.Dataset, name: str, ending: str, level: float) -> Map:
    """The map of one of `KINDS` at the sites with an ending. level: of any false cell of the map."""
    kept = [site for site in found["site"].values.tolist() if site.endswith(ending)]
    faces = face_means(found[name].sel(site=kept).transpose("sample", "site", "learned_step")).mean
    p = MaxT()(faces) if len(faces) > 1 else np.full(faces.shape[1:], np.nan)
    with np.errstate(invalid="ignore"):
        survives = p <= level
    return Map(faces.mean(0), survives, tuple(kept), tuple(found["learned_step"].values.tolist()))
