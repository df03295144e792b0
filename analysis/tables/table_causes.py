"""Causes: what edits of the runs did to identity, and to what is not identity.

Each row is one part of a causal study on one backbone. Cells: windows of steps by groups of blocks.
Largest change: of the judge's cosine to the sample's own person, in the cell where it is largest, which
is biased away from 0 by the choice. Survive: cells whose change differs from 0 with the error of the
part held (max-T over sign flips of faces). Share left, share gained: of that cell, with intervals over
faces (Fieller); blank where there is nothing to divide by. Outside the face: root mean square change of
pixels, 0 to 1. Prompt: mean change of how much the image obeys its prompt (pocket models: share of the
attributes named by it that the read-out sees; else CLIP's cosine). Face found: share of edited images.
Controls: rows with `another photo` and `at random` should change nothing, but for a random face, which
takes the own one away and should gain nothing; `shuffled` ones touch as many steps or blocks as the rows
with first or later ones, at random places. Of `directions` the share left is
that of the way from the run without the adapter (0) to the run with it (1), also where a direction is
added to the former. Of an adapter that is given a picture and no face, identity is likeness to that
picture (DINOv2, else CLIP, else minus the Gram distance), and no face is looked for.
"""

import numpy as np
import xarray as xr

from stepscope.analysis.causal.effects import effects, study_of
from stepscope.analysis.causal.moved import LIKENESSES
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.number import Entry, Number
from stepscope.analysis.quantities import name
from stepscope.analysis.tables.table import Table
from stepscope.probes.interventions.names import ANCHOR

EXPERIMENTS = ("trajectory", "step_budget", "style_adapter", "object_adapter")
COLUMNS = (
    "study", "backbone", "part", "cells", "survive", "largest change", "in the cell", "share left",
    "share gained", "outside the face", "prompt", "face found",
)  # fmt: skip


def build(evidence: Evidence) -> Table:
    """Rows are parts. Raises MissingEvidenceError where no causal study was made."""
    if not evidence.causal:
        raise MissingEvidenceError("no causal study was made: causal=... names them")
    rows: list[list[Entry]] = []
    for study, backbone in evidence.causal:
        parts = dict.fromkeys(study_of(evidence, study, backbone)["part"].values.tolist())
        for part in parts:
            if part != ANCHOR:
                found = effects(evidence, study, backbone, part)
                rows.append([study, name(backbone), part, *row(found)])
    return Table(COLUMNS, rows)


def row(found: xr.Dataset) -> list[Entry]:
    """The entries of a part."""
    place = int(np.nanargmax(np.abs(found["change"].values)))
    cell = found.isel(cell=place)
    where = " ".join(filter(None, (f"step {int(cell['at'])}", str(cell["at_block"].values))))
    shares = [
        Number(float(cell[word]), float(cell[f"{word}_low"]), float(cell[f"{word}_high"]))
        for word in ("kept", "gained")
    ]
    seen = found["found"].mean() if found.attrs["judge"] not in LIKENESSES else np.nan
    return [
        str(found.sizes["cell"]),
        str(int(found["survives"].sum())),
        Number(float(cell["change"]), interval=False),
        where,
        *shares,
        Number(float(found["outside"].mean()), interval=False),
        Number(float(found["obeyed"].mean()), interval=False),
        Number(float(seen), digits=2, interval=False),
    ]
