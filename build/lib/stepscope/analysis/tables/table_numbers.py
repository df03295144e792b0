"""The numbers behind the verdicts: the estimates that the rules read, and the secondary ones.

Positions count completed steps: 8 means after step 7, the eighth. "Before the first" and "after the
last" are ends of intervals outside the measured steps.
"""

from stepscope.analysis.claims import claims
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.number import Entry
from stepscope.analysis.tables.table import Table

EXPERIMENTS = ("main", "trajectory", "step_budget", "weak_adapter")


def build(evidence: Evidence) -> Table:
    """Rows are numbers."""
    rows: list[list[Entry]] = []
    for claim in claims(evidence):
        for part in claim.parts:
            rows += [[claim.title, part.name, what, value, "yes"] for what, value in part.estimates]
            rows += [[claim.title, part.name, what, value, ""] for what, value in part.secondary]
    return Table(("claim", "question", "quantity", "value", "read by the rule"), rows)
