"""Synthetic records with known answers, on which every estimator is tried before it is believed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

Shape = Callable[[Float[np.ndarray, "*point"]], Float[np.ndarray, "*point"]]


@dataclass(frozen=True)
class Hinge:
    """Straight rise from 0 to 1 at step `at`, flat or with a slope (per step) after it."""

    at: float
    slope: float = 0.0

    def __call__(self, step: Float[np.ndarray, "*point"]) -> Float[np.ndarray, "*point"]:
        """Value at each step."""
        return np.minimum(step / self.at, 1) + self.slope * np.maximum(step - self.at, 0)


@dataclass(frozen=True)
class Approach:
    """1 - exp(-step / tau)."""

    tau: float

    def __call__(self, step: Float[np.ndarray, "*point"]) -> Float[np.ndarray, "*point"]:
        """Value at each step."""
        return 1 - np.exp(-step / self.tau)


@dataclass(frozen=True)
class Study:
    """A simulated study: trajectories of faces x prompts x seeds, with deviations of known size.

    shape: mean curve, times `plateau`. Normal standard deviations, in the unit of the values:
    `face_sd` and `cell_sd` of a face's and a cell's plateau, `face_step_sd` and `step_sd` of a
    face's and a cell's value at each step. timing_sd: of the logarithm of a face's pace. missing:
    share of frames in which no face is found, 0 to 1; faces differ in it by a beta distribution
    with the intraclass correlation missing_icc. shift: added to every value.
    prompt_sd, seed_sd: of what a prompt and a seed add to the plateau under every face; prompt_timing_sd:
    of the logarithm of a prompt's pace. step_correlation: of the noise of neighbouring steps, 0 to 1
    (first-order autoregression), in faces and cells. skewed: the faces' plateaus are exponential, not
    normal, of the same mean and deviation.
    """

    shape: Shape
    plateau: float = 0.6
    shift: float = 0.0
    faces: int = 12
    prompts: int = 3
    seeds: int = 2
    steps: int = 28
    face_sd: float = 0.08
    cell_sd: float = 0.08
    face_step_sd: float = 0.01
    step_sd: float = 0.05
    timing_sd: float = 0.0
    missing: float = 0.08
    missing_icc: float = 0.0
    prompt_sd: float = 0.0
    seed_sd: float = 0.0
    prompt_timing_sd: float = 0.0
    step_correlation: float = 0.0
    skewed: bool = False

    def __call__(self, rng: np.random.Generator) -> xr.DataArray:
        """One record (sample, step), sigma falling from 1 as in a run without shift."""
        cells = self.prompts * self.seeds
        step = np.arange(self.steps, dtype=float)
        pace = np.exp(rng.normal(0, self.timing_sd, (self.faces, 1, 1)))
        level = self.plateau + self._of_faces(rng)
        level = level + rng.normal(0, self.cell_sd, (self.faces, cells, 1))
        level, pace = level + self._common(rng), pace * self._paces(rng)
        values = self.shift + level * self.shape(step * pace)
        values += self.face_step_sd * self._noise(rng, 1)
        values += self.step_sd * self._noise(rng, cells)
        values[rng.random(values.shape) < self._lost(rng)] = np.nan
        each = [
            (f"face {f}", f"prompt {p}", s)
            for f in range(self.faces)
            for p in range(self.prompts)
            for s in range(self.seeds)
        ]
        face, prompt, seed = zip(*each, strict=True)
        return xr.DataArray(
            values.reshape(-1, self.steps),
            dims=("sample", "step"),
            coords={
                "face": ("sample", list(face)),
                "prompt": ("sample", list(prompt)),
                "seed": ("sample", list(seed)),
                "step": step.astype(int),
                "sigma": ("step", 1 - step / self.steps),
            },
            name="similarity",
            attrs={"units": "1", "long_name": "similarity"},
        )

    def _of_faces(self, rng: np.random.Generator) -> Float[np.ndarray, "face 1 1"]:
        """What each face adds to the plateau."""
        shape = (self.faces, 1, 1)
        if self.skewed:
            return self.face_sd * (rng.exponential(size=shape) - 1)
        return rng.normal(0, self.face_sd, shape)

    def _common(self, rng: np.random.Generator) -> Float[np.ndarray, "1 cell 1"]:
        """What each prompt and each seed adds to the plateau, the same under every face."""
        if not (self.prompt_sd or self.seed_sd):
            return np.zeros((1, 1, 1))
        prompt = rng.normal(0, self.prompt_sd, (self.prompts, 1))
        return (prompt + rng.normal(0, self.seed_sd, self.seeds)).reshape(1, -1, 1)

    def _paces(self, rng: np.random.Generator) -> Float[np.ndarray, "1 cell 1"]:
        """How much faster each prompt is, under every face."""
        if not self.prompt_timing_sd:
            return np.ones((1, 1, 1))
        pace = np.exp(rng.normal(0, self.prompt_timing_sd, self.prompts))
        return pace.repeat(self.seeds).reshape(1, -1, 1)

    def _noise(self, rng: np.random.Generator, cells: int) -> Float[np.ndarray, "face cell step"]:
        """Standard normal, correlated between neighbouring steps."""
        drawn = rng.normal(0, 1, (self.faces, cells, self.steps))
        kept, new = self.step_correlation, np.sqrt(1 - self.step_correlation**2)
        for k in range(1, self.steps) if kept else ():
            drawn[..., k] = kept * drawn[..., k - 1] + new * drawn[..., k]
        return drawn

    def _lost(self, rng: np.random.Generator) -> Float[np.ndarray, "face 1 1"]:
        """Probability that a frame of each face has none."""
        if not self.missing_icc:
            return np.full((self.faces, 1, 1), float(self.missing))
        weight = 1 / self.missing_icc - 1
        lost, kept = self.missing * weight, (1 - self.missing) * weight
        return rng.beta(lost, kept, (self.faces, 1, 1))

    def population(self) -> Float[np.ndarray, "step"]:
        """The mean curve of all faces and prompts, the average over pace by Gauss-Hermite quadrature."""
        node, weight = np.polynomial.hermite_e.hermegauss(200)
        pace = np.exp(np.hypot(self.timing_sd, self.prompt_timing_sd) * node)[:, None]
        curve = self.shape(np.arange(self.steps) * pace)
        return self.shift + self.plateau * (weight @ curve) / weight.sum()


@dataclass(frozen=True)
class Timing:
    """A simulated run's recorded latency: `calls` calls of `batch` samples, the last one of half.

    seconds: mean seconds an image. spread: standard deviation of a call's logarithm, so that slow
    calls are further off than fast ones; correlation: of the logarithms of neighbouring calls, 0 to 1.
    cold: how many times as long the first call takes.
    """

    seconds: float
    calls: int = 12
    batch: int = 8
    spread: float = 0.1
    correlation: float = 0.0
    cold: float = 1.0

    def __call__(self, rng: np.random.Generator) -> xr.Dataset:
        """`latency_seconds` (sample, part), each call's wall time under all of its samples."""
        free = rng.normal(0, 1, self.calls)
        for k in range(1, self.calls):
            kept = self.correlation
            free[k] = kept * free[k - 1] + np.sqrt(1 - kept**2) * free[k]
        each = self.seconds * np.exp(self.spread * free - self.spread**2 / 2)
        each[0] *= self.cold
        sizes = np.full(self.calls, self.batch)
        sizes[-1] = max(1, self.batch // 2)
        return xr.Dataset(
            {"latency_seconds": (("sample", "part"), np.repeat(each * sizes, sizes)[:, None])},
            coords={
                "part": ["total"],
                "sample": np.arange(sizes.sum()),
                "batch_size": ("sample", np.repeat(sizes, sizes)),
            },
        )
