"""Identity per prompt under both backbones, with the paired difference and the detection rates.

Similarity of the final image to the reference under the judge: mean over faces, with intervals
clustered by face; difference: swapped minus baseline in the same face and seed.
"""

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.number import ONE_FACE, Entry, Number
from stepscope.analysis.quantities import run_name
from stepscope.analysis.tables.table import Table

EXPERIMENTS = ("main",)


def build(evidence: Evidence) -> Table:
    """Rows are prompts."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones]
    names = [run_name(run) for run in runs]
    columns = ["prompt", *names, "difference", "pairs", *(f"detection, {n}" for n in names)]
    ends = [evidence.endpoint(run) for run in runs]
    rows: list[list[Entry]] = []
    for prompt in dict.fromkeys(ends[0]["prompt"].values.tolist()):
        each = [end.isel(sample=end["prompt"].values == prompt) for end in ends]
        found = evidence.effect(*each)
        rates = [evidence.detection(one) for one in each]
        rows.append(
            [
                prompt,
                *(Number.of(evidence.average(one), "mean") for one in each),
                Number.of(found, "effect"),
                str(int(found["pairs"])),
                *(ONE_FACE if rate is None else Number.of(rate, "rate") for rate in rates),
            ]
        )
    return Table(columns, rows)
