"""Coverage of intervals for a clustered proportion near 1: `python -m tests.bench.detection` (two minutes).

Why `cells.detection_rate` is as it is. Percent of 4,000 simulated studies at a nominal 95, the mean over
rates of 80 to 98 % and, in brackets, the worst of them; 3, 6 or 18 samples a face, faces differing by a
beta distribution with an intraclass correlation. At the end, how often every sample is found at 92 %.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from stepscope.analysis.cells import detection_rate
from tests.bench.marks import put

STUDIES, TAIL = 4000, 0.975
RATES = (0.80, 0.86, 0.90, 0.92, 0.94, 0.96, 0.98)


@dataclass(frozen=True)
class Found:
    """Samples of each face in which it is found, of so many."""

    count: Int[np.ndarray, "study face"]
    samples: int

    @property
    def share(self) -> Float[np.ndarray, "study face"]:
        """Of each face."""
        return self.count / self.samples

    @property
    def faces(self) -> int:
        """Number of faces."""
        return self.count.shape[1]


Ends = tuple[Float[np.ndarray, "study"], Float[np.ndarray, "study"]]


def drawn(rate: float, correlation: float, faces: int, samples: int) -> Found:
    """Studies of faces that differ in how often they are found."""
    rng = np.random.default_rng(100 * faces + samples)
    shape = (STUDIES, faces)
    if not correlation:
        return Found(rng.binomial(samples, rate, shape), samples)
    weight = 1 / correlation - 1
    each = rng.beta(rate * weight, (1 - rate) * weight, shape)
    return Found(rng.binomial(samples, each), samples)


def ours(found: Found) -> Ends:
    """`cells.detection_rate`."""
    faces = np.arange(found.faces).repeat(found.samples)
    number = np.tile(np.arange(found.samples), found.faces)
    seen = number[:, None] < found.count.T[faces]
    coords = {
        word: ("sample", values)
        for word, values in {"face": faces, "prompt": number, "seed": 0 * faces}.items()
    }
    rate = detection_rate(
        xr.DataArray(np.where(seen, 1.0, np.nan), dims=("sample", "study"), coords=coords)
    )
    return rate["low"].values, rate["high"].values


def student(found: Found) -> Ends:
    """Student's over the faces' shares."""
    share, n = found.share, found.faces
    half = stats.t.ppf(TAIL, n - 1) * share.std(1, ddof=1) / np.sqrt(n)
    return share.mean(1) - half, share.mean(1) + half


def variance(found: Found) -> Ends:
    """Wilson's, design effect by analysis of variance, at least 1; Student's quantile above 1."""
    share, n, m = found.share, found.faces, found.samples
    between = m * share.var(1, ddof=1)
    within = (m * share * (1 - share)).sum(1) / (n * (m - 1))
    with np.errstate(invalid="ignore"):
        icc = np.nan_to_num((between - within) / (between + (m - 1) * within))
    effect = 1 + (m - 1) * np.maximum(icc, 0)
    quantile = np.where(effect > 1, stats.t.ppf(TAIL, n - 1), stats.norm.ppf(TAIL))
    return wilson(share.mean(1), n * m / effect, quantile)


def unbelieving(found: Found) -> Ends:
    """Wilson's, design effect as the faces show it; none where all have one rate."""
    share, n, total = found.share, found.faces, found.faces * found.samples
    rate, spread = share.mean(1), share.var(1, ddof=1)
    few = (stats.t.ppf(TAIL, total - 1) / stats.t.ppf(TAIL, n - 1)) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        size = np.minimum(few * rate * (1 - rate) * n / spread, total)
    size = np.where(spread > 1e-12, size, few * total)
    return wilson(rate, size, stats.norm.ppf(TAIL))


def wilson(rate: np.ndarray, size: np.ndarray, z: np.ndarray) -> Ends:
    """Wilson's (1927) score interval; size: effective number of samples, z: its quantile."""
    centre = (rate + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2))
    return centre - half, centre + half


INTERVALS: dict[str, Callable[[Found], Ends]] = {
    "ours": ours,
    "analysis of variance": variance,
    "without belief": unbelieving,
    "Student": student,
}


def row(samples: int, correlation: float, faces: int) -> str:
    """A line of the table."""
    studies = [drawn(rate, correlation, faces, samples) for rate in RATES]
    told = []
    for interval in INTERVALS.values():
        ends = [interval(found) for found in studies]
        held = [
            100 * np.mean((low <= rate) & (rate <= high))
            for rate, (low, high) in zip(RATES, ends, strict=True)
        ]
        told.append(f"{np.mean(held):.1f} ({min(held):.1f})")
    every = 100 * np.mean((studies[RATES.index(0.92)].count == samples).all(1))
    return f"| {samples} | {correlation} | {faces} | {' | '.join(told)} | {every:.1f} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="also put the table between a file's marks")
    words = parser.parse_args()
    lines = [
        f"| samples | correlation | faces | {' | '.join(INTERVALS)} | all found at 92 % |",
        "|---|---|---|" + "---|" * (len(INTERVALS) + 1),
    ]
    lines += [
        row(samples, correlation, faces)
        for samples in (3, 6, 18)
        for correlation in (0.0, 0.1, 0.3, 0.6)
        for faces in (6, 12, 24)
    ]
    print("\n".join(lines))
    if words.into is not None:
        put(words.into, "detection", "\n".join(lines))


if __name__ == "__main__":
    main()
