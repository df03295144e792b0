"""Whole tensors of a call on disk, so that memory holds those on their way and not all.

They are written as the chunks of the run that they will be part of, by several threads, while the call goes
on; in the end the files are moved.
"""

import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from stepscope.hooks import atomic
from stepscope.hooks.assemble import Axes
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.ring import Held, Ring
from stepscope.hooks.whole import Whole, encoded, precision

THREADS = 4


class Spool:
    """A folder beside a run that keeps the whole tensors of one call until its samples are written.

    beside: the run's path. `keep` is called where the model runs, everything else on the writer's thread.
    """

    def __init__(self, beside: Path, ring: Ring) -> None:
        self._beside, self._ring = beside, ring
        self._folder: Path | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._jobs: list[Future[None]] = []
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._kinds: dict[str, str] = {}
        self._files: dict[tuple[str, Place], list[Path]] = {}
        self._ended = threading.Event()

    @property
    def sites(self) -> list[str]:
        """The sites that gave something."""
        return list(self._shapes)

    def keep(self, site: str, place: Place, tensor: torch.Tensor) -> None:
        """Keep what a site gave in a pass, (row of the batch, token, channel)."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, "stepscope spool")
        self._shapes[site], self._kinds[site] = tuple(tensor.shape[1:]), precision(tensor)
        held = self._ring.take(tensor.to(getattr(torch, precision(tensor))))
        self._jobs.append(self._pool.submit(self._put, site, place, held))

    def _put(self, site: str, place: Place, held: Held) -> None:
        try:
            if not self._ended.is_set():
                self.put(site, place, held.values())
        finally:
            held.release()

    def put(self, site: str, place: Place, values: torch.Tensor) -> None:
        """Write a file for each row."""
        step, nth = place
        folder = self._made()
        files = []
        for row, one in enumerate(values):
            files.append(folder / f"{site}.{step}.{nth}.{row}")
            with files[-1].open("wb") as file:
                for data in encoded(one):
                    file.write(data)
        self._files[site, place] = files

    def _made(self) -> Path:
        with _TURN:
            if self._folder is None:
                self._beside.parent.mkdir(parents=True, exist_ok=True)
                atomic.sweep(self._beside.parent, self._beside.name)  # what a killed process left
                folder = atomic.partial(self._beside.parent, self._beside.name)
                folder.mkdir()
                self._folder = folder
            return self._folder

    def settle(self) -> None:
        """Wait until all is written. Raises what failed."""
        for job in self._jobs:
            job.result()

    def whole(self, site: str, axes: Axes) -> list[Whole]:
        """Of each sample, (step, branch, token, channel); steps and branches without a pass are missing."""
        files: list[dict[tuple[int, int], Path]] = [{} for _ in range(axes.batch)]
        for place, branch, rows in axes.placed():
            for sample, file in enumerate(self._files.get((site, place), [])[rows]):
                files[sample][place[0], branch] = file
        shape = axes.steps, len(axes.branches), *self._shapes[site]
        return [Whole(shape, self._kinds[site], of_sample) for of_sample in files]

    def close(self) -> None:
        """Drop what is left."""
        self._ended.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


_TURN = threading.Lock()
