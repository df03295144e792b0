"""Every question of the verdicts, with its rule, its control and its estimate.

A question's verdict is its rule applied to its estimate; a claim's verdict follows from its
pre-specified questions. Intervals are over faces and are not adjusted for their number; the next
column gives the interval of the first estimate over faces, prompts and seeds, which generalises to
other prompts and seeds as well.
"""

from stepscope.analysis.claims import claims
from stepscope.analysis.claims.early_window import contradiction
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.number import Entry
from stepscope.analysis.tables.table import Table
from stepscope.analysis.verdict import APPLIED, COMBINED, Part

EXPERIMENTS = ("main", "trajectory", "step_budget", "weak_adapter")
COLUMNS = (
    "claim", "question", "pre-specified", "verdict", "estimate", "over faces, prompts and seeds", "control",
    "rule: the whole interval is",
)  # fmt: skip


def build(evidence: Evidence) -> Table:
    """Rows are questions."""
    rows = [
        [claim.title, part.name, "yes" if part.decides else "", verdict(part),
         estimate(part), part.crossed, part.control, part.rule]
        for claim in claims(evidence)
        for part in claim.parts
    ]  # fmt: skip
    return Table(COLUMNS, rows, note=f"{APPLIED}. {contradiction(evidence)}. {COMBINED}.")


def verdict(part: Part) -> str:
    """The verdict, with the reason where the numbers do not show it."""
    return f"{part.verdict}: {part.reason}" if part.reason else str(part.verdict)


def estimate(part: Part) -> Entry:
    """The number that the rule read; several with their names."""
    if len(part.estimates) == 1:
        return part.estimates[0][1]
    return "; ".join(f"{what} {value}" for what, value in part.estimates) or "–"
