"""Where a curve saturates, by several estimators; the paper has a window, but defines none.

Every definition here is ours. An estimator takes curves y (curve, point) without NaN, measured at
strictly increasing x (point), and returns the position of saturation of each on x. The position is
`inf` where the curve does not saturate within the measured range, and `-inf` where it saturated before
the first point, each with a reason: both are censored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int

from stepscope.analysis.breaks import ENOUGH, After, deviance

REASONS = (
    "",
    "too few measured points",
    "does not rise to its plateau",
    "still rising at the end: reaches the share only within the points that define the plateau",
    "no break: a straight line with correlated errors fits as well",
    "bends the wrong way: faster after the break than before it",
    "still rising at the end: the fit reaches the share after the last point",
    "starts above the share: it was reached before the first point",
)
DOES_NOT_RISE, STARTS_ABOVE = 2, 7
"""Why a position is missing, by code."""

Curves = Float[np.ndarray, "curve point"]
Points = Float[np.ndarray, "point"]


class Saturation(NamedTuple):
    """Position on x (inf: not within the range, -inf: before it), and its reason's code (0: none)."""

    position: Float[np.ndarray, "curve"]
    reason: Int[np.ndarray, "curve"]


@dataclass(frozen=True)
class ShareOfPlateau:
    """First point at which the curve reaches a share of its plateau, linear between the points.

    share: of the plateau, between 0 and 1. plateau: mean of the `tail`, the `peak`, or the `last`
    value. tail: share of the points, at the end, that make the tail (at least one point).
    origin: the share counts from `zero` (cosines) or from the `first` value (quantities without a
    zero of their own). stays: take the last crossing, after which the curve stays above.
    A curve that already starts above is censored on the left.
    """

    share: float
    plateau: Literal["tail", "peak", "last"] = "tail"
    origin: Literal["zero", "first"] = "zero"
    tail: float = 0.25
    stays: bool = False

    def __call__(self, y: Curves, x: Points) -> Saturation:
        """Position and reason of each curve."""
        rows, n = np.arange(len(y)), y.shape[1]
        count = max(1, round(self.tail * n))
        if n < count + 2:
            return _nowhere(len(y), 1)
        level = {"tail": y[:, -count:].mean(1), "peak": y.max(1), "last": y[:, -1]}[self.plateau]
        base = np.zeros(len(y)) if self.origin == "zero" else y[:, 0]
        threshold = base + self.share * (level - base)
        above = y >= threshold[:, None]
        i = n - np.argmin(above[:, ::-1], 1) if self.stays else np.argmax(above, 1)
        i = np.where(above.all(1), 0, np.where(above.any(1), i, n))
        j = np.clip(i, 1, n - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            part = (threshold - y[rows, j - 1]) / (y[rows, j] - y[rows, j - 1])
            position = x[j - 1] + part * (x[j] - x[j - 1])
        late = (i >= n) | (position > x[n - count])
        reasons = np.select([level <= base, i == 0, late], [2, STARTS_ABOVE, 3], 0)
        return _where(position, reasons)


@dataclass(frozen=True)
class BrokenLine:
    """Join of two straight lines, by exact least squares over all joins (Hudson 1966, JASA 61).

    after: the second line is `flat` (a plateau) or `sloped` (the curve may drift). A break is
    reported if the curve is steeper before it than after, and if the deviance against one straight line is
    above ENOUGH; errors of neighbouring points may be correlated, with the correlation fitted for each
    model. BIC assumes independent errors, and finds a break in four of ten straight lines with correlation
    0.9.
    """

    after: After = "flat"

    def __call__(self, y: Curves, x: Points) -> Saturation:
        """Position and reason of each curve."""
        n, free = len(x), 3 if self.after == "flat" else 4
        if n < free + 1:
            return _nowhere(len(y), 1)
        y = y - y.mean(1, keepdims=True)
        total = (y**2).sum(1)
        right = 1 if self.after == "flat" else 2
        splits = np.arange(2, n - right + 1)
        apart = _least_squares(self._apart(x, splits), y, total)
        a, b, c = (apart.beta[..., k] for k in range(3))
        d = 0.0 if self.after == "flat" else apart.beta[..., 3]
        with np.errstate(invalid="ignore", divide="ignore"):
            cross = (c - a) / (b - d)
        inside = (cross >= x[splits - 1]) & (cross <= x[splits])
        knots = np.arange(1, n - 1)
        joined = _least_squares(self._joined(x, knots), y, total)
        error = np.concatenate([np.where(inside, apart.error, np.inf), joined.error], 1)
        position = np.concatenate([cross, np.broadcast_to(x[knots], joined.error.shape)], 1)
        bends = joined.beta[..., 1] > joined.beta[..., -1] * (right - 1)
        steeper = np.concatenate([b > d, bends], 1)
        best = error.argmin(1)[:, None]
        error, position = (np.take_along_axis(v, best, 1)[:, 0] for v in (error, position))
        wrong = ~np.take_along_axis(steeper, best, 1)[:, 0]
        gain = deviance(y, x, position, after=self.after)
        return _where(position, np.select([gain <= ENOUGH[self.after], wrong], [4, 5], 0))

    def _apart(self, x: Points, splits: np.ndarray) -> Float[np.ndarray, "split point term"]:
        left = (np.arange(len(x)) < splits[:, None]).astype(float)
        terms = [left, left * x, 1 - left, (1 - left) * x]
        return np.stack(terms[: 3 if self.after == "flat" else 4], -1)

    def _joined(self, x: Points, knots: np.ndarray) -> Float[np.ndarray, "knot point term"]:
        before, after = np.minimum(x, x[knots][:, None]), np.maximum(x - x[knots][:, None], 0)
        terms = [np.ones_like(before), before, after]
        return np.stack(terms[: 2 if self.after == "flat" else 3], -1)


@dataclass(frozen=True)
class ExponentialApproach:
    """Where the least-squares curve p - a exp(-(x - x0) / tau) reaches a share of its plateau p.

    The linear p and a are solved for at each tau (variable projection, Golub & Pereyra 1973), and
    tau is searched from a quarter of the closest spacing to ten times the range.

    share: of the plateau, between 0 and 1. origin: the share counts from `zero` or from the fit's
    `first` value, p - a. A fit that already starts above is censored on the left.
    """

    share: float
    origin: Literal["zero", "first"] = "zero"

    def __call__(self, y: Curves, x: Points) -> Saturation:
        """Position and reason of each curve."""
        if len(x) < 4:
            return _nowhere(len(y), 1)
        t = x - x[0]
        centred = y - y.mean(1, keepdims=True)
        grid = np.linspace(np.log(np.diff(x).min() / 4), np.log(10 * t[-1]), 192)
        basis = np.exp(-t / np.exp(grid)[:, None])
        basis -= basis.mean(1, keepdims=True)
        best = np.argmax((centred @ basis.T) ** 2 / (basis**2).sum(1), 1)

        def explained(log_tau: Float[np.ndarray, "curve"]) -> Float[np.ndarray, "curve"]:
            z = np.exp(-t / np.exp(log_tau)[:, None])
            z -= z.mean(1, keepdims=True)
            return (centred * z).sum(1) ** 2 / (z**2).sum(1)

        tau = np.exp(_climb(explained, grid[best], grid[1] - grid[0]))
        z = np.exp(-t / tau[:, None])
        zc = z - z.mean(1, keepdims=True)
        a = -(centred * zc).sum(1) / (zc**2).sum(1)
        p = y.mean(1) + a * z.mean(1)
        whole = p if self.origin == "zero" else a
        with np.errstate(invalid="ignore", divide="ignore"):
            position = x[0] + tau * np.log(a / ((1 - self.share) * whole))
        falls, early, late = (a <= 0) | (whole <= 0), position <= x[0], ~(position <= x[-1])
        return _where(position, np.select([falls, early, late], [2, STARTS_ABOVE, 6], 0))


Estimator = ShareOfPlateau | BrokenLine | ExponentialApproach


def panel(share: float) -> tuple[Estimator, ...]:
    """The one list of estimators, for figures and tests; those that count a share take this one."""
    return (
        ShareOfPlateau(share=share),
        BrokenLine(after="flat"),
        BrokenLine(after="sloped"),
        ExponentialApproach(share=share),
    )


class _Fit(NamedTuple):
    beta: Float[np.ndarray, "curve design term"]
    error: Float[np.ndarray, "curve design"]


def _least_squares(
    designs: Float[np.ndarray, "design point term"], y: Curves, total: Float[np.ndarray, "curve"]
) -> _Fit:
    q, r = np.linalg.qr(designs)
    projected = (y @ rearrange(q, "k p t -> p (k t)")).reshape(len(y), *q.shape[::2])
    beta = (np.linalg.inv(r) @ projected[..., None])[..., 0]
    return _Fit(beta, np.maximum(total[:, None] - (projected**2).sum(-1), 0.0))


def _climb(
    f: Callable[[np.ndarray], np.ndarray], start: Float[np.ndarray, "curve"], spacing: float
) -> Float[np.ndarray, "curve"]:
    """Maximum of one function a row near `start`, by parabolas through three ever closer points."""
    best = start
    for width in (spacing, spacing / 8, spacing / 64):
        left, middle, right = f(best - width), f(best), f(best + width)
        bend = left - 2 * middle + right
        with np.errstate(invalid="ignore", divide="ignore"):
            move = np.where(bend < 0, (left - right) / (2 * bend), 0.0)
        best = best + width * np.clip(move, -1, 1)
    return best


def _where(position: np.ndarray, reason: np.ndarray) -> Saturation:
    censored = np.where(reason == STARTS_ABOVE, -np.inf, np.inf)
    return Saturation(np.where(reason == 0, position, censored), reason)


def _nowhere(curves: int, reason: int) -> Saturation:
    return Saturation(np.full(curves, np.inf), np.full(curves, reason))
