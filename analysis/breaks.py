"""Whether a curve has a break at all: a broken line against a straight one, with errors that go together.

Neighbouring steps of one run err together. BIC, which takes them for free, breaks four in ten of the
straight lines whose errors are correlated by .9.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

After = Literal["flat", "sloped"]
Curves = Float[np.ndarray, "curve point"]

ENOUGH: dict[After, float] = {"flat": 8.0, "sloped": 16.0}
"""Deviance by which a break beats a straight line.

Chosen by simulation: straight lines of 6 to 50 points, correlated by 0 to .97, have more in at most
3 (flat) and 6 (sloped) of 100, and few true breaks have less: `python -m tests.bench.breaks`.
"""
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
"""Of neighbouring errors, among which each of the two lines takes what suits it best."""


def deviance(
    y: Curves,
    x: Float[np.ndarray, "point"],
    at: Float[np.ndarray, "curve"],
    *,
    after: After,
) -> Float[np.ndarray, "curve"]:
    """Twice the logarithm of the likelihood ratio of a line broken at `at` over a straight one.

    Normal errors, a first-order autoregression along the points, whose correlation is fitted.
    """
    x, at = np.broadcast_to(x, y.shape), at[:, None]
    terms = [np.ones_like(y), np.minimum(x, at), np.maximum(x - at, 0)]
    broken = np.stack(terms[: 2 if after == "flat" else 3], -1)
    straight = np.stack([np.ones_like(y), x], -1)
    return 2 * (_likelihood(y, broken) - _likelihood(y, straight))


def _likelihood(
    y: Curves, design: Float[np.ndarray, "curve point term"]
) -> Float[np.ndarray, "curve"]:
    """The largest logarithm over CORRELATIONS, each by least squares after Prais & Winsten (1954)."""
    together = np.concatenate([design, y[..., None]], -1)
    # Rounding leaves a floor under a perfect fit's error; below it two fits are equally good.
    floor, n = 1e-12 * (y**2).sum(1) + 1e-300, y.shape[1]
    found = []
    for kept in CORRELATIONS:
        free = together - kept * np.roll(together, 1, 1)
        free[:, 0] = np.sqrt(1 - kept**2) * together[:, 0]
        q, _ = np.linalg.qr(free[..., :-1])
        left = free[..., -1] - (q @ (q.swapaxes(1, 2) @ free[..., -1:]))[..., 0]
        error = (left**2).sum(1) + (1 - kept) ** 2 * floor
        found.append(np.log(1 - kept**2) / 2 - n / 2 * np.log(error))
    return np.max(found, 0)
