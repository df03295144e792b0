"""Directions: differences of mean activations, learned from other samples than the one they are used on.

adapter: with the adapter minus without it, at the same x_t, over the samples of other people.
person: the same, over the person's own samples. other: another person's samples minus the person's own,
and face: the person's own minus everybody else's, both with the adapter.
A sample is learned from only if it shares neither the prompt nor the seed, of whichever of the two there
are several: `held_out`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

from stepscope.hooks.errors import RunError, StepscopeError, nearest
from stepscope.hooks.fingerprint import of_bytes
from stepscope.hooks.store import Run
from stepscope.probes.grid import Cell

ALONG = ("adapter", "person", "other", "face")
VARIED = ("prompt", "seed")
KEPT = 16  # directions in memory
Vectors = Float[np.ndarray, "step site region channel"]


@dataclass(frozen=True, eq=False)
class Directions:
    """Mean activations of samples, and the differences of them.

    means: (sample, state, step, site, region, channel), with the adapter and without; an array, or one
    that is read from disk a sample at a time. sigma: of the steps; face, prompt, seed: of the samples.
    """

    path: Path
    means: Any
    sigma: Float[np.ndarray, "step"]
    sites: tuple[str, ...]
    face: Shaped[np.ndarray, "sample"]
    prompt: Shaped[np.ndarray, "sample"]
    seed: Shaped[np.ndarray, "sample"]

    @property
    def held_out(self) -> tuple[str, ...]:
        """What the samples that a direction is learned from do not share with the one it is used on.

        Raises StepscopeError for samples of one prompt and one seed.
        """
        return varied(self.path, {word: getattr(self, word).tolist() for word in VARIED})

    def apart(self, cell: Cell) -> Bool[np.ndarray, "sample"]:
        """The samples that share nothing with this one that is held out; of every face."""
        return np.logical_and.reduce([getattr(self, w) != getattr(cell, w) for w in self.held_out])

    def learned(self, along: str, cell: Cell, other: str | None = None) -> Vectors:
        """The direction for a sample. other: the other person of `other`.

        Raises StepscopeError where there is nothing to learn it from.
        """
        if along not in ALONG:
            raise StepscopeError(f"no direction along {along!r}; {nearest(along, ALONG)}")
        return self._kept(along, cell, other)

    @cached_property
    def _kept(self) -> Callable[[str, Cell, str | None], Vectors]:
        """Learns a direction once for the many jobs of a sample."""
        return lru_cache(KEPT)(self._difference)

    def _difference(self, along: str, cell: Cell, other: str | None) -> Vectors:
        apart, own = self.apart(cell), self.face == cell.face
        if along in ("adapter", "person"):
            rows = apart & (own if along == "person" else ~own)
            return self._mean(rows, 0, along, cell) - self._mean(rows, 1, along, cell)
        mine = self._mean(apart & own, 0, along, cell)
        if along == "face":
            return mine - self._mean(apart & ~own, 0, along, cell)
        return self._mean(apart & (self.face == other), 0, along, cell) - mine

    def _mean(
        self, rows: Bool[np.ndarray, "sample"], state: int, along: str, cell: Cell
    ) -> Vectors:
        if not rows.any():
            shared = [getattr(cell, word) for word in self.held_out]
            raise StepscopeError(
                f"{self.path} has no sample to learn the direction {along!r} for {cell.face!r} from: it "
                f"needs another {' and '.join(self.held_out)} than {shared}"
            )
        total = sum(np.asarray(self.means[row, state], np.float64) for row in np.flatnonzero(rows))
        return (np.asarray(total) / rows.sum()).astype(np.float32)

    def place(self, site: str) -> int:
        """The place of a site. Raises StepscopeError for one without a direction."""
        if site not in self.sites:
            raise StepscopeError(
                f"{self.path} has no direction at {site}; {nearest(site, self.sites)}"
            )
        return self.sites.index(site)

    def at(self, sigma: float) -> int:
        """The learned step whose noise level is nearest."""
        return int(np.abs(self.sigma - sigma).argmin())


def varied(path: Path, columns: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Of prompts and seeds, those of which the samples have several.

    Raises StepscopeError for samples of one prompt and one seed.
    """
    words = tuple(word for word in VARIED if len(set(columns[word])) > 1)
    if not words:
        raise StepscopeError(
            f"{path}: its samples are of one prompt and one seed, so that no direction can be learned "
            "from other samples than those it is tested on: record another seed, seeds=[0,1]"
        )
    return words


def read_directions(path: Path, *, pooled: bool = False) -> Directions:
    """The directions of a study's activations, at steered sites, of each region of the image.

    pooled: at all sites that were asked for, of all image tokens together. Raises RunError where there are
    none, or unfinished ones.
    """
    if not path.exists():
        raise RunError(
            f"{path.parents[2]} has no directions: there is no {path.relative_to(path.parents[2])}"
        )
    if not Run.open(path).done.all():
        raise RunError(f"{path} is unfinished: the command that made it continues it")
    stored = xr.open_zarr(path, chunks=None)
    return Directions(
        path,
        stored["activation_mean"].values[..., None, :] if pooled else stored["region_mean"],
        stored["learned_sigma"].values,
        tuple(str(site) for site in stored["site" if pooled else "steered_site"].values),
        *(stored[word].values for word in ("face", "prompt", "seed")),
    )


def turned(vectors: Vectors, sites: Sequence[str], seed: int) -> Vectors:
    """The same in a random basis: at each site channels change places and signs, in all regions and steps
    alike. Every length and every angle between two regions or steps is kept.
    """
    found = np.empty_like(vectors)
    for i, site in enumerate(sites):
        drawn = np.random.default_rng(int(of_bytes(f"{seed} {site}".encode())[:15], 16))
        places = drawn.permutation(vectors.shape[-1])
        found[:, i] = vectors[:, i][..., places] * drawn.choice((-1, 1), len(places))
    return found
