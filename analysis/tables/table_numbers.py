"""The numbers behind the verdicts: those that the rules read, and those that stand beside them.

Positions are in steps done: after step 7, the eighth, they are 8. "Before the first" and "after the
last" are ends of intervals beyond what was measured.
"""

from analysis.claims import claims
from analysis.evidence import Evidence
from analysis.number import Entry
from analysis.tables.table import Table

EXPERIMENTS = ("main", "trajectory", "step_budget", "weak_adapter")


def build(evidence: Evidence) -> Table:
    """Rows are numbers."""
    rows: list[list[Entry]] = []
    for claim in claims(evidence):
        for part in claim.parts:
            rows += [[claim.title, part.name, what, value, "yes"] for what, value in part.seen]
            rows += [[claim.title, part.name, what, value, ""] for what, value in part.beside]
    return Table(("claim", "asked", "quantity", "value", "read by the rule"), rows)
