"""A recorded run that values are taken from: opened, found to fit, and read a step at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from stepscope.hooks.attributes import unpacked
from stepscope.hooks.clock import denoiser_of
from stepscope.hooks.errors import EditError, nearest
from stepscope.hooks.fingerprint import of_tensors, own_weights
from stepscope.hooks.laid import unwrapped
from stepscope.hooks.paths import run_path
from stepscope.hooks.whole import FORMAT, as_float32

KEPT = 2**28
"""Bytes of samples that stay in memory, so that a chunk is not read again at every step."""


class Donor:
    """A run with whole tensors of sites, (sample, step, branch, token, channel) each.

    samples: those that are read; None for every one that is done.
    """

    def __init__(self, path: str, samples: Sequence[int] | None) -> None:
        self.path = run_path(path)
        if not (Path(self.path) / "zarr.json").exists():
            raise EditError(f"{path} is not a run: it has no zarr.json")
        self._run = xr.open_zarr(self.path, chunks=None)
        done = np.flatnonzero(self._run["done"].values)
        for sample in samples or ():
            if sample not in done:
                raise EditError(
                    f"{path} has no finished sample {sample}: "
                    + (f"there are {len(done)}, 0 to {done[-1]}" if len(done) else "there is none")
                )
        if not len(done):
            raise EditError(f"{path} has no finished sample")
        self._samples = [int(i) for i in (done if samples is None else samples)]
        self._kept: dict[tuple[str, int | None], np.ndarray] = {}

    def check_sites(self, sites: Sequence[str], branch: str | None) -> None:
        """Raise EditError where the run lacks a site or a branch."""
        kept = [str(name) for name in self._run.data_vars if str(name).count(".") > 1]
        for site in sites:
            if site in kept:
                continue
            if site.endswith((".adapter", ".image_prompt")):
                raise EditError(
                    f"{self.path}: no run keeps {site} whole. Swap((1, 0)) takes it from another row of "
                    "the batch"
                )
            told = nearest(site, kept) if kept else "it keeps none"
            raise EditError(
                f"{self.path} does not store the full tensor of {site}; {told}. "
                f"record(pipe, path, Capture('full', sites=({site!r},))) keeps it"
            )
        branches = [str(name) for name in self._run["branch"].values]
        if branch is not None and branch not in branches:
            raise EditError(f"{self.path} has no branch {branch!r}; it has {', '.join(branches)}")

    def check_model(self, pipe: Any) -> None:
        """Raise EditError where the run is of another denoiser than the pipeline's."""
        denoiser = denoiser_of(pipe)
        name = next(name for name, part in pipe.components.items() if unwrapped(part) is denoiser)
        about = unpacked(self._run.attrs)
        then = about.get("models", {}).get(name)
        now = of_tensors(own_weights(denoiser))
        if then != now:
            kind = about.get("denoiser", {}).get("class", "?")
            raise EditError(
                f"{self.path} was recorded with another {name}: {kind} {then}, and this pipeline's is "
                f"{type(denoiser).__name__} {now}. Values are swapped between calls of one model"
            )

    def check_schedule(self, steps: Sequence[float], name: str = "timestep") -> None:
        """Raise EditError where the run's steps are not those that the call will run.

        steps: the value of each, of the variable `name`: timestep or sigma.
        """
        theirs = self._run[name].values.astype(np.float32)
        mine = np.array(steps, np.float32)
        if not np.array_equal(theirs, mine):
            raise EditError(
                f"{self.path} was recorded on another schedule: {_schedule(theirs, name)}, and this call "
                f"has {_schedule(mine, name)}. Record it with this call's steps"
            )

    def check_shape(self, site: str, tokens: int, channels: int, grid: tuple[int, int]) -> None:
        """Raise EditError where a site, or the image, has another shape in the run.

        grid: rows and columns of the call's image tokens.
        """
        y, x = self._run.sizes.get("y", 0), self._run.sizes.get("x", 0)
        if y * grid[1] != x * grid[0]:
            raise EditError(
                f"{self.path} was recorded with latents of {y} x {x}, and this call's image tokens are "
                f"{grid[0]} x {grid[1]}: record it at this height and width"
            )
        theirs = self._run[site].shape[-2:]
        if theirs != (tokens, channels):
            raise EditError(
                f"{site} holds {theirs[0]} tokens of {theirs[1]} channels in {self.path}, and {tokens} of "
                f"{channels} here: record it at this size, with this max_sequence_length"
            )

    def sample(self, site: str, sample: int, step: int, branch: str) -> torch.Tensor:
        """What a sample carried at a site, (token, channel), in float32."""
        return self._at(self._whole(site, sample), site, step, branch)

    def mean(self, site: str, step: int, branch: str) -> torch.Tensor:
        """The mean over the samples, (token, channel), in float32."""
        key = site, None
        if key not in self._kept:
            total = sum(self._read(site, sample).astype(np.float64) for sample in self._samples)
            self._keep(key, (np.asarray(total) / len(self._samples)).astype(np.float32))
        return self._at(self._kept[key], site, step, branch)

    def _at(self, whole: np.ndarray, site: str, step: int, branch: str) -> torch.Tensor:
        names = [str(name) for name in self._run["branch"].values]
        if branch not in names:
            raise EditError(f"{self.path} has no branch {branch!r}; it has {', '.join(names)}")
        values = torch.from_numpy(whole[step, names.index(branch)])
        if values.isnan().all():
            raise EditError(f"{self.path} has nothing of {site} at step {step}, branch {branch}")
        if not values.isfinite().all():
            raise EditError(
                f"{self.path} holds numbers of {site} at step {step} that are not finite: its coordinate "
                "not_finite names the samples"
            )
        return values

    def _whole(self, site: str, sample: int) -> np.ndarray:
        key = site, sample
        if key not in self._kept:
            self._keep(key, self._read(site, sample))
        return self._kept[key]

    def _read(self, site: str, sample: int) -> np.ndarray:
        stored = self._run[site]
        kind = stored.attrs.get(FORMAT, str(stored.dtype))
        return as_float32(stored.isel(sample=sample).values, kind)

    def _keep(self, key: tuple[str, int | None], values: np.ndarray) -> None:
        if sum(kept.nbytes for kept in self._kept.values()) + values.nbytes > KEPT:
            self._kept.clear()
        self._kept[key] = values


def _schedule(steps: np.ndarray, name: str) -> str:
    return f"{len(steps)} steps at {name}s {steps[0]:.6g} to {steps[-1]:.6g}"
