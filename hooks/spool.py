"""Whole tensors of a call on disk, so that memory holds those of one step and not of all."""

import shutil
from pathlib import Path

import numpy as np
import torch

from stepscope.hooks import atomic
from stepscope.hooks.assemble import Axes
from stepscope.hooks.norm_buffer import Place


class Spool:
    """A folder beside a run that keeps the whole tensors of one call until its samples are written.

    Used on the writer's thread alone.
    """

    def __init__(self, beside: Path) -> None:
        beside.parent.mkdir(parents=True, exist_ok=True)
        atomic.sweep(beside.parent, beside.name)  # what a killed process left
        self._folder = atomic.partial(beside.parent, beside.name)
        self._folder.mkdir()
        self._shapes: dict[str, tuple[int, ...]] = {}

    @property
    def sites(self) -> list[str]:
        """The sites that gave something."""
        return list(self._shapes)

    def put(self, site: str, place: Place, tensor: torch.Tensor) -> None:
        """Keep what a site gave in a pass, (row of the batch, token, channel), in float32."""
        self._shapes[site] = tuple(tensor.shape[1:])
        np.save(self._file(site, place), tensor.float().numpy())

    def stacked(self, site: str, axes: Axes) -> np.ndarray:
        """(sample, step, branch, token, channel), NaN where no pass was; read from disk as it is used."""
        shape = (axes.batch, axes.steps, len(axes.branches), *self._shapes[site])
        file = self._file(site, (-1, -1))
        whole = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        seen = set()
        for place, branch, rows in axes.placed():
            path = self._file(site, place)
            if path.exists():
                whole[:, place[0], branch] = np.load(path, mmap_mode="r")[rows]
                seen.add((place[0], branch))
        for step in range(axes.steps):
            for branch in range(len(axes.branches)):
                if (step, branch) not in seen:
                    whole[:, step, branch] = np.nan
        return whole

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, site: str, place: Place) -> Path:
        step, nth = place
        return self._folder / f"{site}.{step}.{nth}.npy"
