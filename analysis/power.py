"""How many pairs show an effect of a given size: power of the paired t test over faces."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from hooks.errors import StepscopeError

MOST_FACES = 1_000_000
_NODE, _WEIGHT = (v / 2 for v in np.polynomial.legendre.leggauss(400))


def _spread(df: int) -> Float[np.ndarray, "node"]:
    """Estimated over true standard error, at the quadrature nodes of its chi distribution."""
    return np.sqrt(stats.chi2.ppf(_NODE + 0.5, df) / df)


@dataclass(frozen=True)
class Design:
    """A study of `faces` with `cells_per_face` pairs each (prompts x seeds), and what it can see.

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
        """Smallest effect that is seen with this power, in the unit of the effect."""
        widest = 2.0 * self.standard_error
        while self.power(widest) < power:
            widest *= 2
        found = optimize.root_scalar(
            lambda effect: self.power(effect) - power, bracket=(0.0, widest)
        )
        return float(found.root)


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
