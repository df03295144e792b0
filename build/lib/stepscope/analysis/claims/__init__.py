"""The paper's three claims, tested on the measured runs: each is a file, and a line in the list."""

from collections.abc import Callable
from functools import lru_cache

from stepscope.analysis.claims import early_window, later_detail, transfer
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.verdict import Claim

CLAIMS: dict[str, Callable[[Evidence], Claim]] = {
    transfer.TITLE: transfer.claim,
    early_window.TITLE: early_window.claim,
    later_detail.TITLE: later_detail.claim,
}


@lru_cache(maxsize=2)
def claims(evidence: Evidence) -> tuple[Claim, ...]:
    """All claims, computed once; a part that lacks runs or measurements says so.

    Raises StepscopeError where the evidence has no margins.
    """
    return tuple(claim(evidence) for claim in CLAIMS.values())
