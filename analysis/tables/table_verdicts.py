"""What would change our mind: every claim's questions, their rules, their controls, and what was seen.

A question's verdict is its rule applied to its numbers; a claim's follows from the questions that were
named beforehand (marked), the others stand beside. Intervals are over faces, unadjusted for how many
there are; in the next column the first number again, with prompts and seeds drawn too, so that it
speaks of the method and not of these prompts under these seeds.
"""

from analysis.claims import claims
from analysis.claims.early_window import contradicted as window_rule
from analysis.evidence import Evidence
from analysis.number import Entry
from analysis.tables.table import Table
from analysis.verdict import APPLIED, COMBINED, Part

EXPERIMENTS = ("main", "trajectory", "step_budget", "weak_adapter")
COLUMNS = (
    "claim", "asked", "named beforehand", "verdict", "seen", "prompts and seeds drawn too", "held against",
    "rule: the whole interval is",
)  # fmt: skip


def build(evidence: Evidence) -> Table:
    """Rows are questions."""
    rows = [
        [claim.title, part.name, "yes" if part.decides else "", told(part), seen(part),
         part.wider, part.against, part.rule]
        for claim in claims(evidence)
        for part in claim.parts
    ]  # fmt: skip
    return Table(COLUMNS, rows, note=f"{APPLIED}. {window_rule(evidence)}. {COMBINED}.")


def told(part: Part) -> str:
    """The verdict, and why where the numbers do not show it."""
    return f"{part.verdict}: {part.reason}" if part.reason else str(part.verdict)


def seen(part: Part) -> Entry:
    """The number that the rule read, or all of several with their names."""
    if len(part.seen) == 1:
        return part.seen[0][1]
    return "; ".join(f"{what} {value}" for what, value in part.seen) or "–"
