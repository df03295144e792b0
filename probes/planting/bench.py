"""The models that organisms are planted in, with what the adapter does there by itself."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from stepscope.hooks.edits import Edit, Scale
from stepscope.hooks.edits.sites import ADAPTER, Sites
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.recorder import record
from stepscope.probes import grid
from stepscope.probes.models import Models
from stepscope.probes.planting.operations import Keep, Values
from stepscope.probes.planting.organism import Organism, Place
from stepscope.probes.replay import continue_rows

NORMS = ("attention_norm", "residual_norm", "contribution")
"""Of a record, what is kept for every block and step."""
PEOPLE = 4
"""A person, the one whose residual an interchange takes, and the decoy of each."""


@dataclass(frozen=True)
class Recorded:
    """Runs from noise, one for each row. latents: x_t before each step. values: what the adapter added
    there, (row, token, channel) by site and step. norms: (row, group, step), of image tokens."""

    latents: Float[np.ndarray, "row step channel y x"]
    final: Float[np.ndarray, "row channel y x"]
    values: Values
    norms: Mapping[str, Float[np.ndarray, "row group step"]]


@dataclass(frozen=True)
class Bench:
    """Loaded models and their people; all start from one noise and one prompt.

    together: how many neighbouring blocks are one group of the map.
    """

    loaded: Models
    together: int = 2

    def __post_init__(self) -> None:
        if len(self.loaded.faces) < PEOPLE:
            raise StepscopeError(
                f"faces: {len(self.loaded.faces)} people; planting needs {PEOPLE} or more, since an "
                "interchange and its decoys are of four"
            )

    @property
    def people(self) -> list[str]:
        """Names of the faces."""
        return list(self.loaded.faces)

    @property
    def steps(self) -> int:
        return self.loaded.study.steps

    @cached_property
    def groups(self) -> list[list[str]]:
        """The adapter's sites, in groups of neighbouring blocks."""
        names = [s for s in Sites.of_pipe(self.loaded.pipe).names if s.endswith(f".{ADAPTER}")]
        return [names[i : i + self.together] for i in range(0, len(names), self.together)]

    @property
    def sites(self) -> list[str]:
        return [site for group in self.groups for site in group]

    def other(self, person: int) -> int:
        """Whose values an interchange takes."""
        return (person + 1) % len(self.people)

    def stranger(self, person: int) -> int:
        """Whose residual is the decoy in a run on this person."""
        return (person + 2) % len(self.people)

    def cells(self, people: Sequence[int]) -> list[grid.Cell]:
        """A row for each of these people."""
        (prompt,), (seed,) = self.loaded.study.prompts, self.loaded.study.seeds
        return [grid.Cell(i, self.people[p], prompt, seed) for i, p in enumerate(people)]

    def noise(self, rows: int) -> Float[np.ndarray, "row channel y x"]:
        cell = self.cells([0])
        return grid.noise(cell, self.loaded.latent_shape, None).numpy().repeat(rows, 0)

    def recorded(self, people: Sequence[int], edits: Sequence[Edit] = ()) -> Recorded:
        """Denoise rows from the noise under edits, and keep what a record and the adapter's edge show."""
        keep = Keep()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "base.zarr"
            with record(self.loaded.pipe, path):
                cells, start = self.cells(people), self.noise(len(people))
                continue_rows(self.loaded, cells, start, 0, [*edits, Edit(f"*.{ADAPTER}", keep)])
            run = xr.open_zarr(path, chunks=None).load()
        norms = {name: self._grouped(run[name]) for name in NORMS}
        return Recorded(run["latents"].values, run["final_latents"].values, keep.kept, norms)

    def _grouped(self, norm: xr.DataArray) -> np.ndarray:
        """The mean of a norm over the blocks of each group, (row, group, step)."""
        image = norm.sel(branch="positive")
        image = image.sel(stream="image") if "stream" in image.dims else image
        if "injection" in image.dims:  # of the one adapter
            image = image.swap_dims(injection="injection_block").rename(injection_block="block")
        of = [[site.removesuffix(f".{ADAPTER}") for site in group] for group in self.groups]
        means = [image.sel(block=names).mean("block") for names in of]
        return np.stack([one.transpose("sample", "step").values for one in means], 1)

    @cached_property
    def natural(self) -> Recorded:
        """Every person's run with the whole adapter."""
        return self.recorded(range(len(self.people)))

    @cached_property
    def without(self) -> Recorded:
        """The run in which the adapter adds zeros; it is the same for every person."""
        return self.recorded([0], [Edit(f"*.{ADAPTER}", Scale(0.0))])

    def size(self, place: Place) -> float:
        """The norm of the adapter's own residual at a place, a mean over people; of one block's use."""
        whole = self.natural.values[self.groups[place.group][0], place.step]
        return float(whole.flatten(1).norm(dim=1).mean())

    def decoys(self, organism: Organism) -> Values:
        """What the organism's decoys hold in the run on each person.

        Of `other` the residual of a stranger, of `random` one direction for all tokens, each drawn anew for
        every person and group, with the norm of the stranger's residual at each token. Both are rescaled
        so that the norm is `louder` times that of the largest planted residual.
        """
        most = organism.louder * organism.scale * max(map(self.size, organism.identity))
        found = {}
        for place in organism.decoys:
            for site in self.groups[place.group]:
                own = self.natural.values[site, place.step]
                stranger = own[[self.stranger(person) for person in range(len(own))]]
                if organism.decoy == "random":
                    stranger = self._random(organism.seed, place.group, stranger)
                norm = stranger.flatten(1).norm(dim=1)[:, None, None]
                found[site, place.step] = stranger * (most / norm)
        return found

    def _random(self, seed: int, group: int, like: torch.Tensor) -> torch.Tensor:
        drawn = np.random.default_rng([seed, group]).normal(size=(len(like), 1, like.shape[-1]))
        unit = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).to(like)
        return like.norm(dim=-1, keepdim=True) * unit


def with_people(loaded: Models, names: Sequence[str]) -> Models:
    """The models with these faces alone, in this order."""
    return replace(loaded, faces={name: loaded.faces[name] for name in names})
