"""Evidence whose truth is known: curves and levels are given, and faces, cells and steps scatter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.synthetic import Approach, Hinge
from tests.measured import MARGINS, attributes

Shape = Callable[[np.ndarray], np.ndarray]
"""Share of the last value, by steps done."""
STEPS = 28
OFF_FROM = (0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28)
BUDGETS = (1, 2, 4, 8, 14, 28)
FEW = 4
EARLY, LATE = Approach(1.5), Approach(6.0)


@dataclass(frozen=True)
class Truth:
    """What is true of a study.

    baseline, swapped: cosine with the adapter at the end; none: without it; few: of the baseline in
    the swapped one's few steps. Shapes: of identity by each mode, of the blurred final image, and of
    sharpness and contrast. distances: of baseline and swapped. spread: SD over faces of a level, and
    noise: of every value.
    """

    baseline: float = 0.8
    swapped: float = 0.8
    none: float = 0.02
    few: float = 0.7
    whole: Shape = EARLY
    predicted: Shape = EARLY
    carried: Shape = EARLY
    committed: Shape = EARLY
    null: Shape = LATE
    sharp: Shape = LATE
    contrast: Shape = LATE
    distances: tuple[float, float] = (0.40, 0.39)
    seconds: tuple[float, float] = (6.0, 1.0)
    faces: int = 8
    prompts: int = 2
    spread: float = 0.05
    noise: float = 0.01
    seed: int = 0

    def evidence(self, *, without: Sequence[str] = (), gone: Sequence[str] = ()) -> Evidence:
        """without: variables that were not measured; gone: experiments that were not run."""
        rng = np.random.default_rng(self.seed)
        level = {face: rng.normal(0, self.spread) for face in range(self.faces)}
        dev, schnell = (
            self.along(rng, level),
            self.ended(rng, level, "pocket_schnell", FEW, self.swapped),
        )
        runs = {
            "main": [dev, schnell],
            "trajectory": [dev],
            "step_budget": [self.budget(rng, level, n) for n in BUDGETS],
            "weak_adapter": [
                self.ended(rng, level, name, steps, value, scale)
                for name, steps, full in (
                    ("pocket_dev", STEPS, self.baseline),
                    ("pocket_schnell", FEW, self.swapped),
                )
                for scale, value in ((0.0, self.none), (1.0, full))
            ],
        }
        left = {
            word: [run.drop_vars(without, errors="ignore") for run in each]
            for word, each in runs.items()
            if word not in gone
        }
        return Evidence(
            left, baseline="pocket_dev", swapped="pocket_schnell", resamples=399, margins=MARGINS
        )

    def budget(self, rng: np.random.Generator, level: dict, steps: int) -> xr.Dataset:
        """A whole run of the baseline with so many steps."""
        share = float(self.whole(np.array([float(steps)]))[0])
        value = self.few if steps == FEW and self.whole is EARLY else self.baseline * share
        return self.ended(rng, level, "pocket_dev", steps, value)

    def along(self, rng: np.random.Generator, level: dict) -> xr.Dataset:
        """The baseline's run, read at every step."""
        run = self.ended(rng, level, "pocket_dev", STEPS, self.baseline)
        done = np.arange(STEPS, dtype=float)
        face = np.array([level[int(f.split()[1])] for f in run["face"].values])[:, None]
        noise = lambda points: rng.normal(0, self.noise, (len(face), points))  # noqa: E731

        def curve(shape: Shape, steps: np.ndarray) -> np.ndarray:
            return (self.baseline + face) * shape(steps) + noise(len(steps))

        off = np.array(OFF_FROM, float)
        three = ("sample", "step", "recogniser")
        names: dict[str, Any] = {
            "similarity": ((*three, "alignment"), curve(self.predicted, done + 1)[..., None, None]),
            "carried_similarity": (
                (*three, "alignment"), curve(self.carried, done)[..., None, None],
            ),
            "null_similarity": (three, curve(self.null, done + 1)[..., None]),
            "committed_similarity": (
                ("sample", "off_from", "recogniser"), curve(self.committed, off)[..., None],
            ),
            "sharpness": (
                ("sample", "step", "region", "measure"),
                (self.sharp(done + 1) + noise(STEPS))[..., None, None],
            ),
            "contrast": (("sample", "step", "region"), (self.contrast(done + 1) + noise(STEPS))[..., None]),
        }  # fmt: skip
        return run.assign(names).assign_coords(
            step=np.arange(STEPS),
            sigma=("step", 1 - done / STEPS),
            off_from=list(OFF_FROM),
            off_sigma=("off_from", 1 - off / STEPS),
            alignment=["fixed"],
            region=["face"],
            measure=["laplacian"],
        )

    def ended(
        self,
        rng: np.random.Generator,
        level: dict,
        backbone: str,
        steps: int,
        value: float,
        scale: float = 1.0,
    ) -> xr.Dataset:
        """A run of which the end alone was measured."""
        cells = [(f, p) for f in range(self.faces) for p in range(self.prompts)]
        n, swapped = len(cells), backbone == "pocket_schnell"
        own = np.array([level[f] for f, _ in cells]) if value > 0.1 else 0.0
        each = value + own + rng.normal(0, self.noise, n)
        call = np.arange(n) // 2
        seconds = self.seconds[swapped] * rng.uniform(0.95, 1.05, call[-1] + 1)[call] * 2
        names = {
            "final_similarity": (("sample", "recogniser"), each[:, None]),
            "lpips": (("sample", "pair"), (self.distances[swapped] + rng.normal(0, 0.01, n))[:, None]),
            "latency_seconds": (("sample", "part"), seconds[:, None]),
        }  # fmt: skip
        return xr.Dataset(
            names,
            coords={
                "face": ("sample", [f"face {f}" for f, _ in cells]),
                "prompt": ("sample", [f"prompt {p}" for _, p in cells]),
                "seed": ("sample", np.zeros(n, int)),
                "batch_size": ("sample", np.full(n, 2)),
                "sample": np.arange(n),
                "sigma": ("step", 1 - np.arange(steps) / steps),
                "recogniser": ["pocket"],
                "conditioning": ("recogniser", [False]),
                "part": ["total"],
                "pair": ["reference"],
            },
            attrs=attributes(backbone, steps, scale, None, 1.0, (0,)),
        )


def straight(start: float) -> Shape:
    """From a share of the last value to all of it, over the whole run."""
    return lambda steps: start + (1 - start) * steps / STEPS


def flat(steps: np.ndarray) -> np.ndarray:
    """There from the first step on, and all of it."""
    return np.ones_like(steps)


def hinge(at: float) -> Shape:
    """A straight rise until so many steps."""
    return Hinge(at)
