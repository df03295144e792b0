"""The main comparison: both backbones with the same frozen adapter, and their paired difference.

Means over faces of the means of their samples, with intervals clustered by face. Difference: swapped
minus baseline in the same face, prompt and seed. d_z: effect over the standard deviation of one
pair's difference, with the bounds that the t test beside it implies. Pairs needed: to see a
difference of 0.028 (the paper's) with power 0.8, by the deviation between faces found here and as
many cells a face; in brackets, for both ends of the 80% interval of that deviation: plan with the
upper end. A recogniser marked "conditions" feeds the adapter: its similarity is circular. The share
of the way is the judge's, from another person's reference (0) to the same person's other photos
(1). Seconds an image: a pipeline call's wall time over its batch size, mean over calls of one batch
size without the first (cold) call, with Student's interval at the effective number of independent
calls. The column of the difference gives the speed-up: the ratio of the two means with Fieller's
interval, or none if a run has only one such call.
"""

from collections.abc import Callable, Iterator

import xarray as xr

from stepscope.analysis.calls import average, seconds_an_image
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError, measured
from stepscope.analysis.number import ABSENT, ONE_FACE, Entry, Number
from stepscope.analysis.power import pairs_needed, pairs_range
from stepscope.analysis.quantities import DISTANCES, perceptual, run_name
from stepscope.analysis.speed import describe_calls, times_faster
from stepscope.analysis.tables.table import Table
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.usage import says

EXPERIMENTS = ("main",)
PAPERS_EFFECT = 0.028
Quantity = Callable[[xr.Dataset], xr.DataArray]
WAY = "judge, as a share of the way"


def build(evidence: Evidence) -> Table:
    """Rows are quantities."""
    runs = [evidence.one("main", backbone=b) for b in evidence.backbones]
    columns = ["quantity", *map(run_name, runs), "difference", "d_z", "pairs", "pairs needed"]
    rows = [seconds(evidence, runs)]
    for label, quantity in quantities(runs):
        rows.append(row(evidence, runs, label, quantity))
    rows.insert(2, row(evidence, runs, WAY, lambda run: evidence.way(evidence.endpoint(run), run)))
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
    distance = perceptual(runs[0])
    for metric, word in ((distance, DISTANCES[distance]), ("dinov2", "DINOv2")):
        pairs = compared(runs[0], metric)
        for pair in pairs:
            label = f"{word}, {pair}" if pair else word
            yield label, lambda run, m=metric, p=pair: measured(run, m).sel(pair=p, drop=True)


def compared(run: xr.Dataset, metric: str) -> list[str]:
    """The pairs that a run has a value of, or one without a name where there is none."""
    if metric not in run:
        return [""]
    there = run[metric].notnull().any("sample")
    return run["pair"].values[there.values].tolist() or [""]


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
    """Pairs that show the paper's effect with power 0.8, `–` where the deviation is not known."""
    faces, spread = int(found["faces"]), float(found["face_sd"])
    cells = max(1, round(int(found["pairs"]) / max(1, faces)))
    plan = {"cells_per_face": cells, "power": 0.8}
    try:
        here = pairs_needed(PAPERS_EFFECT, between_sd=spread, within_sd=0.0, **plan).pairs
        low, high = pairs_range(PAPERS_EFFECT, spread=spread, faces=faces, **plan)
    except StepscopeError:
        return "–"
    return f"{here} [{low}, {high}]"


def seconds(evidence: Evidence, runs: list[xr.Dataset]) -> list[Entry]:
    """Seconds an image, and how many times faster the swapped backbone is."""
    label = "seconds an image"
    try:
        values = [seconds_an_image(run) for run in runs]
    except MissingEvidenceError:
        return [label, ABSENT, ABSENT, ABSENT, "", "", ""]
    each = [Number.of(average(calls, level=evidence.level), "mean") for calls in values]
    return [label, *each, times_faster(evidence, runs), "", describe_calls(values), ""]


def missing(rows: list[list[Entry]]) -> str:
    """What was not measured, and how to get it."""
    gone = [str(row[0]) for row in rows if row[1] == ABSENT]
    if not gone:
        return ""
    return (
        f"Not measured: {', '.join(gone)}. `{says('measure')} RUN.zarr metrics=[lpips,dinov2,chance]` "
        "adds them where their models and photos are."
    )
