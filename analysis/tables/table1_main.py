"""The main comparison: both backbones with the same frozen adapter, and their paired difference.

Means over faces of the means of their samples, with intervals clustered by face. Difference: swapped
minus baseline in the same face, prompt and seed. d_z: effect over the standard deviation of one
pair's difference. Pairs needed: to see a difference of 0.028 (the paper's) with power 0.8, by the
deviations found here and as many cells a face. A recogniser marked "conditions" feeds the adapter:
its similarity is circular. Seconds an image: a pipeline call's wall time over its batch size, mean
over calls with Student's interval, a run's cold first call left out where two others remain; in
place of the difference how many times faster, the ratio of the two means with Fieller's interval.
"""

from collections.abc import Callable, Iterator, Sequence

import xarray as xr

from analysis.calls import Calls, average, faster, seconds_an_image
from analysis.evidence import Evidence, MissingEvidenceError, measured
from analysis.power import pairs_needed
from analysis.quantities import run_name
from analysis.tables.table import ABSENT, ONE_FACE, Entry, Number, Table
from hooks.errors import StepscopeError

EXPERIMENTS = ("main",)
PAPERS_EFFECT = 0.028
Quantity = Callable[[xr.Dataset], xr.DataArray]


def build(evidence: Evidence) -> Table:
    """Rows are quantities."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones]
    columns = ["quantity", *map(run_name, runs), "difference", "d_z", "pairs", "pairs needed"]
    rows = [seconds(evidence, runs)]
    for label, quantity in quantities(runs):
        rows.append(row(evidence, runs, label, quantity))
    rates = [evidence.detection(evidence.endpoint(run)) for run in runs]
    told: list[Entry] = [ONE_FACE if r is None else Number.of(r, "rate") for r in rates]
    rows.append(["detection rate", *told, "", "", "", ""])
    return Table(columns, rows, note=missing(rows))


def quantities(runs: list[xr.Dataset]) -> Iterator[tuple[str, Quantity]]:
    """Every recogniser of the first run, then the metrics of pairs."""
    similarity = measured(runs[0], "final_similarity")
    names = similarity["recogniser"].values.tolist()
    for name, circular in zip(names, similarity["conditioning"].values, strict=True):
        mark = " (conditions)" if circular else ""
        yield f"ArcFace, {name}{mark}", lambda run, name=name: final(run, name)
    for metric in ("lpips", "dinov2"):
        pairs = runs[0]["pair"].values.tolist() if metric in runs[0] else [""]
        for pair in pairs:
            label = (
                f"{metric.upper() if metric == 'lpips' else 'DINOv2'}{f', {pair}' if pair else ''}"
            )
            yield label, lambda run, m=metric, p=pair: measured(run, m).sel(pair=p, drop=True)


def final(run: xr.Dataset, recogniser: str) -> xr.DataArray:
    """Similarity of the final image under a recogniser, (sample)."""
    values = measured(run, "final_similarity")
    if recogniser not in values["recogniser"].values:
        raise MissingEvidenceError(f"recogniser {recogniser!r} did not measure this run")
    return values.sel(recogniser=recogniser).drop_vars(["recogniser", "conditioning"])


def row(evidence: Evidence, runs: list[xr.Dataset], label: str, quantity: Quantity) -> list[Entry]:
    """A quantity under both backbones, and its paired effect."""
    try:
        values = [quantity(run) for run in runs]
        found = evidence.effect(*values)
    except StepscopeError:
        return [label, ABSENT, ABSENT, ABSENT, "", "", ""]
    size = Number(*(float(found[w]) for w in ("d_z", "d_z_low", "d_z_high")), digits=2)
    each = [Number.of(evidence.average(v), "mean") for v in values]
    needed = pairs_for(found) if label.startswith("ArcFace") else ""
    return [label, *each, Number.of(found, "effect"), size, str(int(found["pairs"])), needed]


def pairs_for(found: xr.Dataset) -> str:
    """Pairs that show the paper's effect with power 0.8, `–` where the deviations are not known."""
    try:
        design = pairs_needed(
            PAPERS_EFFECT,
            between_sd=float(found["between_sd"]),
            within_sd=float(found["within_sd"]),
            cells_per_face=max(1, round(int(found["pairs"]) / max(1, int(found["faces"])))),
            power=0.8,
        )
    except StepscopeError:
        return "–"
    return str(design.pairs)


def seconds(evidence: Evidence, runs: list[xr.Dataset]) -> list[Entry]:
    """Seconds an image, and how many times faster the swapped backbone is."""
    label = "seconds an image"
    try:
        values = [seconds_an_image(run) for run in runs]
    except MissingEvidenceError:
        return [label, ABSENT, ABSENT, ABSENT, "", "", ""]
    each = [Number.of(average(calls, level=evidence.level), "mean") for calls in values]
    return [label, *each, times_faster(evidence, runs), "", counted(values), ""]


def counted(calls: Sequence[Calls]) -> str:
    """How many calls of each run count and how many do not: `4 + 4 calls, less 1 + 1 cold`."""
    counts = " + ".join(str(len(each.seconds)) for each in calls)
    left_out = " + ".join(str(each.left_out) for each in calls)
    return f"{counts} calls" + (f", less {left_out} cold" if any(c.left_out for c in calls) else "")


class Ratio(Number):
    """How many times faster."""

    def __str__(self) -> str:
        value, _, bounds = super().__str__().partition(" ")
        return f"{value}× {bounds}"


def times_faster(evidence: Evidence, runs: list[xr.Dataset]) -> Ratio:
    """The first run's seconds an image over the second's. Raises MissingEvidenceError."""
    slow, fast = (seconds_an_image(run) for run in runs)
    return Ratio.of(faster(slow, fast, level=evidence.level), "ratio", digits=2)


def missing(rows: list[list[Entry]]) -> str:
    """What was not measured, and how to get it."""
    gone = [str(row[0]) for row in rows if row[1] == ABSENT]
    if not gone:
        return ""
    return (
        f"Not measured: {', '.join(gone)}. `python -m analysis runs=[...] metrics=[lpips,dinov2]` adds "
        "them where their models are installed."
    )
