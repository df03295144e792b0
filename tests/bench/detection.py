"""Coverage of intervals for a clustered proportion near 1: `python -m tests.bench.detection` (a minute).

Why `cells.detection_rate` is as it is. Percent of 5,000 simulated studies at a nominal 95, averaged
over rates of 86 to 98 %, and at 92 % alone; 6 samples a face, faces differing by a beta distribution
with an intraclass correlation. At the end, how often every sample is found.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy import stats

from analysis.cells import detection_rate
from tests.bench.marks import put

SAMPLES, STUDIES, TAIL = 6, 5000, 0.975
Found = Int[np.ndarray, "study face"]
Ends = tuple[Float[np.ndarray, "study"], Float[np.ndarray, "study"]]


def drawn(rate: float, correlation: float, faces: int) -> Found:
    """Samples of each face in which it is found."""
    rng = np.random.default_rng(faces)
    shape = (STUDIES, faces)
    if not correlation:
        return rng.binomial(SAMPLES, rate, shape)
    weight = 1 / correlation - 1
    return rng.binomial(SAMPLES, rng.beta(rate * weight, (1 - rate) * weight, shape))


def ours(found: Found) -> Ends:
    """`cells.detection_rate`."""
    faces = np.arange(found.shape[1]).repeat(SAMPLES)
    seen = np.tile(np.arange(SAMPLES), found.shape[1])[:, None] < found.T[faces]
    place = {
        "face": faces,
        "prompt": np.tile(np.arange(SAMPLES), found.shape[1]),
        "seed": 0 * faces,
    }
    coords = {word: ("sample", values) for word, values in place.items()}
    rate = detection_rate(
        xr.DataArray(np.where(seen, 1.0, np.nan), dims=("sample", "study"), coords=coords)
    )
    return rate["low"].values, rate["high"].values


def student(found: Found) -> Ends:
    """Student's over the faces' shares."""
    share, n = found / SAMPLES, found.shape[1]
    half = stats.t.ppf(TAIL, n - 1) * share.std(1, ddof=1) / np.sqrt(n)
    return share.mean(1) - half, share.mean(1) + half


def variance(found: Found) -> Ends:
    """Wilson's, design effect by analysis of variance, at least 1; Student's quantile above 1."""
    share, n = found / SAMPLES, found.shape[1]
    between = SAMPLES * share.var(1, ddof=1)
    within = (SAMPLES * share * (1 - share)).sum(1) / (n * (SAMPLES - 1))
    with np.errstate(invalid="ignore"):
        icc = np.nan_to_num((between - within) / (between + (SAMPLES - 1) * within))
    effect = 1 + (SAMPLES - 1) * np.maximum(icc, 0)
    quantile = np.where(effect > 1, stats.t.ppf(TAIL, n - 1), stats.norm.ppf(TAIL))
    return wilson(share.mean(1), n * SAMPLES / effect, quantile)


def shrunk(found: Found, weight: float = 8.0) -> Ends:
    """Wilson's, design effect shrunk towards 1 as if by `weight` more faces that differ by chance."""
    share, n = found / SAMPLES, found.shape[1]
    rate, spread = share.mean(1), share.var(1, ddof=1)
    with np.errstate(invalid="ignore"):
        effect = np.where(spread > 1e-12, spread * SAMPLES / (rate * (1 - rate)), 1.0)
    effect = ((n - 1) * effect + weight) / (n - 1 + weight)
    return wilson(rate, n * SAMPLES / effect, stats.t.ppf(TAIL, n - 1 + weight))


def wilson(rate: np.ndarray, size: np.ndarray, z: np.ndarray) -> Ends:
    """Wilson's (1927) score interval; size: effective number of samples, z: its quantile."""
    centre = (rate + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(rate * (1 - rate) / size + z**2 / (4 * size**2))
    return centre - half, centre + half


INTERVALS: dict[str, Callable[[Found], Ends]] = {
    "ours": ours,
    "analysis of variance": variance,
    "shrunk": shrunk,
    "Student": student,
}


def row(faces: int, correlation: float) -> str:
    """A line of the table."""
    rates = np.linspace(0.86, 0.98, 13).round(2)
    studies = [drawn(rate, correlation, faces) for rate in rates]
    here, told = rates.tolist().index(0.92), []
    for interval in INTERVALS.values():
        ends = [interval(found) for found in studies]
        held = [
            100 * np.mean((low <= rate) & (rate <= high))
            for rate, (low, high) in zip(rates, ends, strict=True)
        ]
        told.append(f"{np.mean(held):.1f} ({held[here]:.1f})")
    every = 100 * np.mean((studies[here] == SAMPLES).all(1))
    return f"| {faces} | {correlation} | {' | '.join(told)} | {every:.1f} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="also put the table between a file's marks")
    words = parser.parse_args()
    lines = [
        f"| faces | correlation | {' | '.join(INTERVALS)} | all found at 92 % |",
        "|---|---|" + "---|" * (len(INTERVALS) + 1),
    ]
    lines += [row(faces, correlation) for correlation in (0.0, 0.1, 0.3) for faces in (8, 12, 24)]
    print("\n".join(lines))
    if words.into is not None:
        put(words.into, "detection", "\n".join(lines))


if __name__ == "__main__":
    main()
