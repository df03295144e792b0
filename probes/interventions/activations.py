"""Mean activations of a run's samples with the adapter and without it, at the same recorded x_t.

Both are evaluated in one batch, at some steps of the run. What directions are learned from is so kept
beside the study, one place for each sample; a direction is never more than a difference of these means.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from stepscope.hooks.edits import At, Edit, Operation, Scale
from stepscope.hooks.errors import RunError
from stepscope.hooks.layout import Layout
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import VARIABLES, Variable
from stepscope.probes import grid, models
from stepscope.probes.claims import Claims
from stepscope.probes.interventions.batch import ADAPTER
from stepscope.probes.interventions.names import ACTIVATIONS
from stepscope.probes.interventions.pooled import Regions
from stepscope.probes.replay import continue_rows
from stepscope.probes.rereading import Rereading

STATES = ("on", "off")
DECLARED = {
    "activation_mean": Variable(
        ("sample", "adapter_state", "learned_step", "site", "hidden_channel"),
        "float32",
        "1",
        "mean over image tokens at the sample's recorded x_t, with the adapter and without it",
    ),
    "region_mean": Variable(
        ("sample", "adapter_state", "learned_step", "steered_site", "region", "hidden_channel"),
        "float32",
        "1",
        "the same over the image tokens of each region, row by row",
    ),
    "activation_norm": Variable(
        ("sample", "adapter_state", "learned_step", "site"),
        "float32",
        "1",
        "root mean square over image tokens of the L2 norm over channels: sqrt(mean_t |h_t|^2)",
    ),
}


@dataclass(frozen=True)
class Learning:
    """What is evaluated. cells: of the run; steps: of the run, ascending; sites: of image streams.

    steered: those of them that each region has means of. channels: of every site. rows: of one call, at
    most. adapter: the sites of the adapter that is studied.
    """

    run: Rereading
    path: Path
    cells: tuple[grid.Cell, ...]
    steps: tuple[int, ...]
    sites: tuple[str, ...]
    steered: tuple[str, ...]
    regions: Regions
    channels: int
    rows: int = 32
    adapter: tuple[str, ...] = ADAPTER

    def batches(self) -> list[list[grid.Cell]]:
        """Cells that are evaluated together, by their places in `path`; each of them is two rows."""
        places = [replace(cell, index=i) for i, cell in enumerate(self.cells)]
        return [*grid.split(places, max(1, self.rows // 2))]

    def left(self) -> list[list[grid.Cell]]:
        """The batches of which a sample is not done."""
        if not self.path.exists():
            return self.batches()
        done = Run.open(self.path).done
        return [some for some in self.batches() if not done[[cell.index for cell in some]].all()]

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser for one sample each that are left."""
        return sum(map(len, self.left())) * len(self.steps) * len(STATES)

    @property
    def megabytes(self) -> float:
        """Of the whole record, before compression."""
        return len(self.cells) * sum(self.layout().bytes_per_sample().values()) / 1e6

    def open_or_create(self) -> Run:
        """The record of activations. Raises RunError where it holds other ones."""
        said = {
            "sites": list(self.sites),
            "steered": list(self.steered),
            "steps": list(self.steps),
            "regions": self.regions.side,
            "samples": [cell.index for cell in self.cells],
        }
        if self.path.exists():
            store = Run.open(self.path)
            if store.attributes.get("learned") != said:
                raise RunError(
                    f"{self.path} holds activations of other sites, steps or samples: remove "
                    f"{self.path.parent}, or name this study edit.name=..."
                )
            return store
        labels = [
            {"face": c.face, "prompt": c.prompt, "seed": c.seed, "base": c.index}
            for c in self.cells
        ]
        return Run.create(self.path, self.layout(), labels, {"learned": said})

    def layout(self) -> Layout:
        """Variables and coordinates of the record."""
        states, steps = len(STATES), len(self.steps)
        shape, regions = (states, steps, len(self.sites)), (len(self.steered), len(self.regions))
        return Layout(
            {
                "done": (VARIABLES["done"], ()),
                "activation_mean": (DECLARED["activation_mean"], (*shape, self.channels)),
                "region_mean": (DECLARED["region_mean"], (states, steps, *regions, self.channels)),
                "activation_norm": (DECLARED["activation_norm"], shape),
            },
            {
                "adapter_state": ("adapter_state", np.array(STATES)),
                "learned_step": ("learned_step", np.array(self.steps)),
                "learned_sigma": ("learned_step", self.run.sigma[list(self.steps)]),
                "site": ("site", np.array(self.sites)),
                "steered_site": ("steered_site", np.array(self.steered)),
            },
        )


@dataclass(frozen=True, eq=False)
class Means(Operation):
    """Change nothing, and keep of each site its regions' means and its norm, of rows in their order."""

    regions: Regions
    mean: dict[str, np.ndarray] = field(default_factory=dict)
    norm: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        self.mean[at.site] = self.regions.pooled(values).cpu().numpy()
        self.norm[at.site] = values.float().square().sum(-1).mean(-1).sqrt().cpu().numpy()
        return values

    def values(self, sites: Sequence[str], steered: Sequence[str]) -> dict[str, np.ndarray]:
        """By variable: (row, site, ...). Regions are of one size: their mean is that of all tokens."""
        return {
            "activation_mean": np.stack([self.mean[site].mean(1) for site in sites], 1),
            "activation_norm": np.stack([self.norm[site] for site in sites], 1),
            "region_mean": np.stack([self.mean[site] for site in steered], 1),
        }


def record(learning: Learning, loaded: models.Models, advance: Callable[[str], None]) -> None:
    """Evaluate every sample that is not done. Raises RunError where the record is of other samples."""
    left, out = learning.left(), learning.open_or_create()
    with closing(Claims(out)) as claims:
        for cells in claims.each(left):
            found = []
            for step in learning.steps:
                found.append(_measured(learning, loaded, cells, step))
                for _ in range(len(STATES) * len(cells)):
                    advance("directions")
            values = {name: np.stack([one[name] for one in found], 2) for name in found[0]}
            for i, cell in enumerate(cells):
                out.write(cell.index, {name: some[i] for name, some in values.items()})


def _measured(
    learning: Learning, loaded: models.Models, cells: Sequence[grid.Cell], step: int
) -> dict[str, np.ndarray]:
    """By variable, its values (sample, state, site, ...) at a step."""
    means, n = Means(learning.regions), len(cells)
    rows = [learning.cells[cell.index].index for cell in cells]
    stored = np.stack([learning.run.read("latents", [row])[0, step] for row in rows])
    edits = [
        Edit(learning.adapter, Scale(0.0), rows=range(n, 2 * n)),
        Edit(learning.sites, means, branch="positive"),
    ]
    twice = [*cells, *cells]
    continue_rows(always_on(loaded), twice, np.concatenate([stored, stored]), step, edits, steps=1)
    found = means.values(learning.sites, learning.steered)
    return {name: np.stack([of[:n], of[n:]], 1) for name, of in found.items()}


def always_on(loaded: models.Models) -> models.Models:
    """The same models with the adapter on in every step, so that each step has a direction."""
    adapter = loaded.study.adapter
    assert adapter is not None
    return replace(loaded, study=replace(loaded.study, adapter=adapter.always_on()))


def folder(study: Path) -> Path:
    """Where the activations lie that a study's directions are learned from."""
    return study / ACTIVATIONS
