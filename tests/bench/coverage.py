"""Coverage of every interval in simulated studies: `python -m tests.bench.coverage` (about 20 min).

Prints a Markdown table, in percent of 1,000 studies, at a nominal 95: the recommended interval for
8, 12 and 24 faces, and for 12 faces the plain percentile bootstrap that it replaces.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from analysis.bootstrap import Bounds, ExpandedPercentile, Statistic, weighted_means
from analysis.coverage import CASES

FACES = (8, 12, 24)


@dataclass(frozen=True)
class Percentile(ExpandedPercentile):
    """The percentile interval of the cluster bootstrap as it is usually taken, for comparison."""

    resamples: int = 999

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        """The interval of `statistic`."""
        n, rng = len(faces), np.random.default_rng(self.seed)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=self.resamples).astype(float)
        draws = np.sort(statistic(weighted_means(drawn, faces)), 0)
        rank = int((self.resamples + 1) * (1 - self.level) / 2)
        estimate = statistic(weighted_means(np.ones((1, n)), faces))[0]
        return Bounds(estimate, draws[rank - 1], draws[-rank])


def main() -> None:
    """Measure and print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    studies = parser.parse_args().studies
    print("| quantity | truth | interval |", *(f"{f} faces |" for f in FACES), "plain, 12 faces |")
    print("|---|---|---|" + "---|" * (len(FACES) + 1))
    for case in CASES:
        row = [case.coverage(case.interval, faces=f, studies=studies) for f in FACES]
        row.append(case.coverage(Percentile(), faces=12, studies=studies))
        shares = " | ".join(f"{100 * share:.1f}" for share in row)
        kind = type(case.interval).__name__
        print(f"| {case.name} | {case.truth:.3f} | {kind} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
