"""How often a broken line is seen: `python -m tests.bench.breaks` (half a minute).

Percent of 1,500 curves in which `saturation.BrokenLine` reports a break, with a flat and a sloped end:
straight lines from .8 to 1 (a break is false) and .6 times a hinge that is flat after a third of the
points (a break is true), each with normal errors of sd .01 and .03, correlated between points.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Float

from stepscope.analysis.breaks import After
from stepscope.analysis.saturation import BrokenLine
from stepscope.analysis.synthetic import Hinge
from tests.bench.marks import put

CURVES = 1500
KINDS: tuple[After, ...] = ("flat", "sloped")


def errors(points: int, correlation: float, seed: int = 0) -> Float[np.ndarray, "curve point"]:
    """Standard normal, a first-order autoregression along the points."""
    free = np.random.default_rng(seed).normal(size=(CURVES, points))
    for k in range(1, points):
        kept = correlation * free[:, k - 1]
        free[:, k] = kept + np.sqrt(1 - correlation**2) * free[:, k]
    return free


def seen(curves: Float[np.ndarray, "curve point"], after: After) -> float:
    """Percent of the curves that have a break."""
    position = BrokenLine(after=after)(curves, np.arange(float(curves.shape[1]))).position
    return float(100 * np.isfinite(position).mean())


def row(points: int, correlation: float) -> str:
    """A line of the table."""
    step, error = np.arange(float(points)), errors(points, correlation)
    straight = 0.8 + 0.2 * step / (points - 1) + 0.01 * error
    told = [f"{seen(straight, kind):.1f}" for kind in KINDS]
    for spread in (0.01, 0.03):
        broken = 0.6 * Hinge(points / 3)(step) + spread * error
        told += [f"{seen(broken, kind):.1f}" for kind in KINDS]
    return f"| {points} | {correlation} | {' | '.join(told)} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="also put the table between a file's marks")
    words = parser.parse_args()
    lines = [
        "| points | correlation | false, flat | false, sloped | true, sd .01, flat | sloped "
        "| true, sd .03, flat | sloped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [row(n, kept) for n in (8, 14, 28, 50) for kept in (0.0, 0.6, 0.9, 0.97)]
    print("\n".join(lines))
    if words.into is not None:
        put(words.into, "breaks", "\n".join(lines))


if __name__ == "__main__":
    main()
