"""Max-T: which cells of a map differ from zero, with the error of the whole map held.

Westfall and Young (1993): the largest |t| of all cells, in studies in which each face's values have their
signs flipped, is what each cell's |t| is compared with. Faces are flipped whole, so that the correlation
between cells is kept. It needs six faces at least: of fewer the smallest p value is above 0.05.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float

from stepscope.hooks.errors import StepscopeError

EXACT = 12
"""Up to so many faces every pattern of signs is taken."""


@dataclass(frozen=True)
class MaxT:
    """Sign flips over faces. draws: patterns of signs for more than `EXACT` faces; seed: of theirs.

    level: probability of any false cell in a map, 0 to 1.
    """

    level: float = 0.05
    draws: int = 4999
    seed: int = 0

    def __call__(self, values: Float[np.ndarray, "face *cell"]) -> Float[np.ndarray, "*cell"]:
        """Adjusted p value of each cell: of a largest |t| as large as the cell's, if all means were 0.

        values: differences, of mean 0 where an edit does nothing. A cell is NaN where a face has no value,
        or all of them are the same. Raises StepscopeError for fewer than two faces.
        """
        n = len(values)
        if n < 2:
            raise StepscopeError(f"max-T flips signs of faces: it needs at least 2 faces, got {n}")
        flat = values.reshape(n, -1).astype(float)
        whole = np.isfinite(flat).all(0) & ((flat**2).sum(0) > 0)
        found = np.full(flat.shape[1], np.nan)
        if whole.any():
            cells = flat[:, whole]
            observed = np.abs(student(np.ones((1, n)), cells))[0]
            largest = np.abs(student(self.signs(n), cells)).max(1)
            # rounding makes no tie a difference
            found[whole] = (largest[:, None] >= observed * (1 - 1e-9)).mean(0)
        return found.reshape(values.shape[1:])

    def survives(self, values: Float[np.ndarray, "face *cell"]) -> Bool[np.ndarray, "*cell"]:
        """Which cells differ from zero at the level."""
        with np.errstate(invalid="ignore"):
            return self(values) <= self.level

    def signs(self, faces: int) -> Float[np.ndarray, "pattern face"]:
        """Patterns of signs, the observed one among them."""
        if faces <= EXACT:
            return np.array([*product((1.0, -1.0), repeat=faces)])
        drawn = np.random.default_rng(self.seed).choice((1.0, -1.0), (self.draws, faces))
        return np.concatenate([np.ones((1, faces)), drawn])


def student(
    signs: Float[np.ndarray, "pattern face"], cells: Float[np.ndarray, "face cell"]
) -> Float[np.ndarray, "pattern cell"]:
    """Student's t of each cell's mean over faces under each pattern of signs; infinite without spread."""
    n = len(cells)
    mean = signs @ cells / n
    spread = np.maximum((cells**2).mean(0) - mean**2, 0.0) / (n - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean == 0, 0.0, mean / np.sqrt(spread))
