"""Whether a curve has a break: a broken line against a straight one, with correlated errors.

The errors of neighbouring steps of one run are correlated. BIC, which assumes independent errors, finds
a break in four of ten straight lines whose errors have correlation 0.9.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

After = Literal["flat", "sloped"]
Curves = Float[np.ndarray, "curve point"]

ENOUGH: dict[After, float] = {"flat": 8.0, "sloped": 16.0}
"""Deviance above which a break is reported.

Chosen by simulation: of straight lines with 6 to 50 points and correlation 0 to 0.97, at most 3 % (flat)
and 6 % (sloped) exceed it, and few true breaks fall below: `python -m tests.bench.breaks`.
"""
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
"""Correlations of neighbouring errors; each of the two lines is fitted with its best one."""


def deviance(
    y: Curves,
    x: Float[np.ndarray, "point"],
    at: Float[np.ndarray, "curve"],
    *,
    after: After,
) -> Float[np.ndarray, "curve"]:
    """Twice the log-likelihood ratio (curve,) of a line broken at `at` to a straight one.

    y: (curve, point) at x (point,); at: (curve,) in the unit of x; after: the line's end behind the break.
    Errors are normal, a first-order autoregression along the points with a fitted correlation.
    """
    x, at = np.broadcast_to(x, y.shape), at[:, None]
    terms = [np.ones_like(y), np.minimum(x, at), np.maximum(x - at, 0)]
    broken = np.stack(terms[: 2 if after == "flat" else 3], -1)
    straight = np.stack([np.ones_like(y), x], -1)
    return 2 * (_likelihood(y, broken) - _likelihood(y, straight))


def _likelihood(
    y: Curves, design: Float[np.ndarray, "curve point term"]
) -> Float[np.ndarray, "curve"]:
    """The largest log-likelihood over CORRELATIONS, each by Prais & Winsten's (1954) least squares."""
    together = np.concatenate([design, y[..., None]], -1)
    # Rounding bounds the error of a perfect fit from below; fits below this floor are equally good.
    floor, n = 1e-12 * (y**2).sum(1) + 1e-300, y.shape[1]
    largest = []
    for rho in CORRELATIONS:
        whitened = together - rho * np.roll(together, 1, 1)
        whitened[:, 0] = np.sqrt(1 - rho**2) * together[:, 0]
        q, _ = np.linalg.qr(whitened[..., :-1])
        target = whitened[..., -1:]
        residual = (target - q @ (q.swapaxes(1, 2) @ target))[..., 0]
        error = (residual**2).sum(1) + (1 - rho) ** 2 * floor
        largest.append(np.log(1 - rho**2) / 2 - n / 2 * np.log(error))
    return np.max(largest, 0)
