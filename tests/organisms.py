"""Results of the benchmark with known causes, as it leaves them."""

import numpy as np

from stepscope.analysis.planted.methods import METHODS, NORMS
from stepscope.analysis.planted.result import Result
from stepscope.analysis.planted.seen import Check
from stepscope.probes.planting.organism import organisms


def known_organisms(count: int) -> list[Result]:
    """Organisms on which edits are always right, and norms see all that is there."""
    found = []
    for one in organisms(0, count, 6, 4):
        truth, filled = one.truth(6, 4), np.zeros((6, 4), bool)
        filled[tuple(np.array(one.filled).T)] = True
        scores = {m: np.where(filled if m in NORMS else truth, 1.0, 0.0) for m in METHODS}
        scores["swap ablation"] = np.zeros((6, 4))
        check = Check(np.ones(2), np.zeros(2), np.zeros((0, 2)))
        found.append(Result(one, True, check, truth, filled, scores))
    return found
