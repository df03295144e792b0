"""Is the effect guidance or transfer? Each backbone at fixed steps with different guidance.

Three kinds of guidance: `guidance` is dev's embedding (schnell has none); `true CFG` above 1 is a second,
negative pass; InfuseNet's own stays at its published 1. Similarity of the final image under the
judge, mean over faces with its interval; SD over seeds: standard deviation within a face and a
prompt; difference: against the backbone's first row, paired by face, prompt and seed. Seconds an
image: wall time of a pipeline call over its batch size, mean over calls of one batch size without the
first (cold) call.
"""

import numpy as np
import xarray as xr

from stepscope.analysis.calls import average, seconds_an_image
from stepscope.analysis.compare import components
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import setting
from stepscope.analysis.number import ABSENT, ONE_FACE, Entry, Number
from stepscope.analysis.quantities import name
from stepscope.analysis.tables.table import Table
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("guidance",)
COLUMNS = (
    "backbone", "steps", "guidance", "true CFG", "similarity", "SD over seeds", "difference",
    "pairs", "detection", "seconds an image",
)  # fmt: skip


def build(evidence: Evidence) -> Table:
    """Rows are runs."""
    rows: list[list[Entry]] = []
    for backbone in evidence.backbones:
        runs = sorted(
            evidence.all("guidance", backbone=backbone),
            key=lambda r: (
                setting(r, "steps"),
                setting(r, "true_cfg"),
                setting(r, "guidance") or 0,
            ),
        )
        rows += [row(evidence, run, runs[0]) for run in runs]
    return Table(COLUMNS, rows)


def row(evidence: Evidence, run: xr.Dataset, first: xr.Dataset) -> list[Entry]:
    """One run, and its difference to the backbone's first."""
    end = evidence.endpoint(run)
    rate = evidence.detection(end)
    change: list[Entry] = ["", ""]
    if run is not first:
        found = evidence.effect(evidence.endpoint(first), end)
        change = [Number.of(found, "effect"), str(int(found["pairs"]))]
    try:
        calls = average(seconds_an_image(run), level=evidence.level)
        taken: Entry = Number.of(calls, "mean")
    except StepscopeError:
        taken = ABSENT
    guidance = setting(run, "guidance")
    return [
        name(setting(run, "backbone")),
        str(setting(run, "steps")),
        "none" if guidance is None else f"{guidance:g}",
        f"{setting(run, 'true_cfg'):g}",
        Number.of(evidence.average(end), "mean"),
        Number(over_seeds(end), interval=False),
        *change,
        ONE_FACE if rate is None else Number.of(rate, "rate"),
        taken,
    ]


def over_seeds(values: xr.DataArray) -> float:
    """Standard deviation within a face and a prompt, pooled over prompts; NaN with one seed."""
    prompts = dict.fromkeys(values["prompt"].values.tolist())
    each = [components(values.isel(sample=values["prompt"].values == p)).within for p in prompts]
    return float(np.sqrt(np.mean(each)))
