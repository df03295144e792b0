"""Planted causes: which methods find where identity enters, where the answer is known?

Organisms are made from the adapter by planting: identity enters only in chosen blocks and steps, in two
places of which each is enough (redundant), or beside decoys as loud (another person's residual, or a
random direction). Entries: area under the ROC curve over the cells of the map, a mean over the organisms
that passed their check, with intervals over organisms (none for fewer than five); 1 finds every place,
0.5 is chance. Last row: how often other organisms have identity at a place, which is no measurement.
"""

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.number import Entry, Number
from stepscope.analysis.planted.table import by_method, failing, sentence, table
from stepscope.analysis.tables.table import Table
from stepscope.probes.usage import says

EXPERIMENTS = ()


def build(evidence: Evidence) -> Table:
    """Rows are methods, columns kinds of organisms. Raises MissingEvidenceError without a benchmark."""
    results = evidence.planted
    if not any(one.passed for one in results):
        raise MissingEvidenceError(
            f"no benchmark of planted causes lies where `planted=` says: {says('planted')} makes it"
        )
    found = table(results)
    kinds = by_method(found)
    names = list(next(iter(kinds.values())))
    rows: list[list[Entry]] = [
        [method, *(Number(*of[name][2:5], digits=2) for name in names)]
        for method, of in kinds.items()
    ]
    counts = [next(iter(kinds.values()))[name].organisms for name in names]
    heads = [f"{name.replace('_', ' ')} ({n})" for name, n in zip(names, counts, strict=True)]
    passed = sum(one.passed for one in results)
    note = (
        f"{passed} of {len(results)} organisms passed their check; the others are left out. "
        f"{sentence(results)} Not shown to be better than chance: {'; '.join(failing(found)) or 'none'}."
    )
    return Table(("method", *heads), rows, note=note)
