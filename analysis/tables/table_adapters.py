"""Does a frozen adapter transfer, by adapter? On the backbone that it learnt on and on the few-step one.

Likeness of the final image: to the reference's face under the judge or, of an adapter of style or of an
object, to the reference picture by the experiment's own measure; means over references with their
intervals. Share of the way: of similarity, from another person's reference (0) to the same person's other
photos (1). Difference: few-step minus base in the same reference, prompt and seed. Not lower: its whole
interval is at or above minus `verdict.transfer_margin`. Of each backbone the run of the most steps, of
InfuseNet that of the main comparison.
"""

from collections.abc import Iterator

import xarray as xr

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError, measured, setting
from stepscope.analysis.number import ABSENT, Entry, Number
from stepscope.analysis.quantities import name, run_name
from stepscope.analysis.tables.table import Table
from stepscope.analysis.verdict import AtLeast
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("main", "adapters", "style_adapter", "object_adapter")
COLUMNS = (
    "adapter", "measure", "on its base", "likeness", "of the way", "on the few-step model",
    "likeness", "of the way", "difference", "not lower",
)  # fmt: skip
MEASURES = (
    "reference_look_pocket",
    "reference_hat_pocket",
    "reference_dinov2",
    "reference_clip",
)
"""Likenesses to a picture; of those that a run has, the first is read."""


def build(evidence: Evidence) -> Table:
    """Rows are adapters. Raises MissingEvidenceError where none ran on two backbones."""
    rows = [row(evidence, *pair) for pair in pairs(evidence)]
    if not rows:
        raise MissingEvidenceError("no adapter ran on two backbones in this study")
    return Table(COLUMNS, rows)


def pairs(evidence: Evidence) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
    """The runs of each adapter: on the backbone with the most steps, and on that with the fewest."""
    for experiment in EXPERIMENTS:
        by_adapter: dict[str, dict[str, xr.Dataset]] = {}
        for run in evidence.runs.get(experiment, ()):
            backbones = by_adapter.setdefault(str(setting(run, "adapter.name")), {})
            backbone = str(setting(run, "backbone"))
            if backbone not in backbones or run.sizes["step"] > backbones[backbone].sizes["step"]:
                backbones[backbone] = run
        for backbones in by_adapter.values():
            ordered = sorted(backbones.values(), key=lambda run: -run.sizes["step"])
            if len(ordered) > 1:
                yield ordered[0], ordered[-1]


def row(evidence: Evidence, base: xr.Dataset, few: xr.Dataset) -> list[Entry]:
    """One adapter; a measure that a run lacks is absent."""
    adapter = name(str(setting(base, "adapter.name")))
    named = [run_name(base), run_name(few)]
    try:
        measure, ends = likeness(evidence, base, few)
        found = evidence.effect(*ends)
    except StepscopeError:
        return [adapter, ABSENT, named[0], ABSENT, "", named[1], ABSENT, "", "", ""]
    change = Number.of(found, "effect")
    each: list[Entry] = []
    for run, where, end in zip((base, few), named, ends, strict=True):
        each += [where, Number.of(evidence.average(end), "mean"), way(evidence, run, end, measure)]
    verdict = (
        "" if evidence.margins is None else str(AtLeast(-evidence.margins.transfer_margin)(change))
    )
    return [adapter, measure.replace("_", " "), *each, change, verdict]


def likeness(
    evidence: Evidence, base: xr.Dataset, few: xr.Dataset
) -> tuple[str, tuple[xr.DataArray, xr.DataArray]]:
    """What is measured, and its values (sample) of both runs."""
    measure = next((one for one in MEASURES if one in base), None)
    if measure is not None:
        return measure, (measured(base, measure), measured(few, measure))
    judge = evidence.recogniser(base)
    return f"ArcFace, {judge}", (evidence.endpoint(base, judge), evidence.endpoint(few, judge))


def way(evidence: Evidence, run: xr.Dataset, end: xr.DataArray, measure: str) -> Entry:
    """Similarity of faces as a share of the way; a likeness to a picture has none."""
    if measure in MEASURES:
        return ""
    try:
        return Number.of(evidence.average(evidence.way(end, run)), "mean")
    except StepscopeError:
        return ABSENT
