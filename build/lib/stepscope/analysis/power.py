"""How many pairs show an effect of a given size: power of the paired t test over faces."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from stepscope.hooks.errors import StepscopeError

MOST_FACES = 1_000_000
_NODE, _WEIGHT = (v / 2 for v in np.polynomial.legendre.leggauss(400))


@lru_cache(maxsize=10_000)
def _spread(df: int) -> Float[np.ndarray, "node"]:
    """Estimated over true standard error, at the quadrature nodes of its chi distribution."""
    return np.sqrt(stats.chi2.ppf(_NODE + 0.5, df) / df)


def noncentrality(
    t: Float[np.ndarray, "*rest"], df: Float[np.ndarray, "*rest"], *, level: float
) -> Float[np.ndarray, "bound=2 *rest"]:
    """Both ends of the interval of a t statistic's noncentrality (Steiger & Fouladi 1997).

    It leaves out 0 exactly where the two-sided t test at this level rejects. NaN where t or df is.
    By the quadrature of `Design.power`, and bisection.
    """
    bounds = np.full((2, t.size), np.nan)
    for k, (value, free) in enumerate(zip(t.ravel(), df.ravel(), strict=True)):
        if not (np.isfinite(value) and free >= 1):
            continue
        scaled = value * _spread(int(free))
        reach = 12 + 4 * abs(
            value
        )  # the interval is wider than that of t by a little, never so much
        for end, tail in enumerate(((1 + level) / 2, (1 - level) / 2)):
            bounds[end, k] = optimize.brentq(
                lambda shift, tail=tail, scaled=scaled: (
                    _WEIGHT @ stats.norm.cdf(scaled - shift) - tail
                ),
                value - reach,
                value + reach,
            )
    return bounds.reshape(2, *t.shape)


@dataclass(frozen=True)
class Design:
    """A study of `faces` with `cells_per_face` pairs each (prompts x seeds), and its power.

    between_sd, within_sd: standard deviations of a pair's difference between and within faces
    (`compare` estimates both), in the unit of the effect. level: confidence level of the two-sided
    interval, 0 to 1; the test's size is 1 - level.
    """

    faces: int
    cells_per_face: int
    between_sd: float
    within_sd: float
    level: float = 0.95

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.faces * self.cells_per_face

    @property
    def design_effect(self) -> float:
        """1 + (m - 1) icc: variance of the mean over that of as many free pairs (Kish 1965)."""
        between, within = self.between_sd**2, self.within_sd**2
        return 1 + (self.cells_per_face - 1) * between / (between + within)

    @property
    def standard_error(self) -> float:
        """Of the mean difference over faces, in the unit of the effect."""
        within = self.within_sd**2 / self.cells_per_face
        return float(np.sqrt((self.between_sd**2 + within) / self.faces))

    def power(self, effect: float) -> float:
        """Probability that the two-sided test with faces - 1 degrees of freedom rejects no effect.

        The noncentral t's tails, integrated over the chi-squared variance; scipy's own nct gives NaN
        for two or three faces and large effects.
        """
        df = self.faces - 1
        critical = stats.t.ppf((1 + self.level) / 2, df) * _spread(df)
        shift = abs(effect) / self.standard_error
        kept = stats.norm.cdf(critical - shift) - stats.norm.cdf(-critical - shift)
        return float(1 - _WEIGHT @ kept)

    def detectable(self, power: float) -> float:
        """Smallest effect that is detected with this power (0 to 1), in the unit of the effect."""
        widest = 2.0 * self.standard_error
        while self.power(widest) < power:
            widest *= 2
        found = optimize.root_scalar(
            lambda effect: self.power(effect) - power, bracket=(0.0, widest)
        )
        return float(found.root)


def pairs_range(
    effect: float,
    *,
    spread: float,
    faces: int,
    cells_per_face: int,
    power: float,
    level: float = 0.95,
    sure: float = 0.8,
) -> tuple[int, int]:
    """Pairs needed at both ends of the interval of the standard deviation that the pilot gave.

    spread: standard deviation over the pilot's faces of their mean difference, in the unit of the
    effect; of so many normal faces its square is known by chi-squared. sure: coverage of the
    interval, 0 to 1; a plan at its upper end falls short of the power in (1 - sure) / 2 of pilots,
    one at the estimate itself in half of them. Raises StepscopeError as `pairs_needed` does, and
    for fewer than two faces.
    """
    if faces < 2:
        raise StepscopeError(f"a spread over faces needs at least 2 faces, got {faces}")
    tails = ((1 + sure) / 2, (1 - sure) / 2)
    low, high = (
        pairs_needed(
            effect,
            between_sd=spread * float(np.sqrt((faces - 1) / stats.chi2.ppf(tail, faces - 1))),
            within_sd=0.0,
            cells_per_face=cells_per_face,
            power=power,
            level=level,
        ).pairs
        for tail in tails
    )
    return low, high


def pairs_needed(
    effect: float,
    *,
    between_sd: float,
    within_sd: float,
    cells_per_face: int,
    power: float,
    level: float = 0.95,
) -> Design:
    """The smallest design that shows `effect` with `power` (0 to 1); its `pairs` is the answer.

    More cells of the same faces do not help beyond between_sd: only faces do. Raises StepscopeError
    for an effect of 0, a power outside (1 - level, 1), NaN or vanishing deviations, and designs of
    more than a million faces.
    """
    if not (1 - level < power < 1) or effect == 0:
        raise StepscopeError(f"no design shows an effect of {effect} with power {power}")
    if not between_sd**2 + within_sd**2 > 0 or cells_per_face < 1:
        raise StepscopeError(
            f"between_sd={between_sd}, within_sd={within_sd}, cells_per_face={cells_per_face}: "
            "a design needs deviations above 0 and at least one cell a face"
        )

    def design(faces: int) -> Design:
        return Design(faces, cells_per_face, between_sd, within_sd, level)

    low, high = 1, 2
    while design(high).power(effect) < power:
        low, high = high, 2 * high
        if high > MOST_FACES:
            raise StepscopeError(f"an effect of {effect} needs more than {MOST_FACES:,} faces")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if design(middle).power(effect) >= power else (middle, high)
    return design(high)
