"""Effects of a paper's causal studies, by study, backbone and part."""

import numpy as np
import xarray as xr

from stepscope.analysis.causal.moved import LIKENESSES, Moved
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.composing import composed
from stepscope.probes.usage import says

LEVEL = 0.05
"""Probability of any false cell in a map (max-T)."""


def study_of(evidence: Evidence, name: str, backbone: str) -> xr.Dataset:
    """A measured causal study. Raises MissingEvidenceError where it was not made."""
    if (name, backbone) not in evidence.causal:
        planned = composed([], "paper")["causal"]
        of = planned[name]["of"] if name in planned else "trajectory"
        raise MissingEvidenceError(
            f"the causal study {name!r} was not made on {backbone}: {says('paper')} "
            f"experiments=[{of}] makes it, where its causal.{name} says how"
        )
    return evidence.causal[name, backbone]


def judge_of(evidence: Evidence, study: xr.Dataset) -> str:
    """Who judges: the evidence's recogniser, or the first that does not condition the adapter.

    Of a study that was measured by likeness to a picture, and not to a face, the first such likeness.
    """
    if "edited_similarity" not in study:
        pictures = [name for name in LIKENESSES if name in study]
        if not pictures:
            raise MissingEvidenceError(f"the study was measured by none of {', '.join(LIKENESSES)}")
        return pictures[0]
    names = study["recogniser"].values.tolist()
    free = [n for n, c in zip(names, study["conditioning"].values, strict=True) if not c]
    judge = evidence.judge or next(iter(free), None)
    if judge not in names:
        raise MissingEvidenceError(f"recogniser {judge!r} did not measure this study: {names}")
    return str(judge)


def effects(
    evidence: Evidence, name: str, backbone: str, part: str, image: str = "final"
) -> xr.Dataset:
    """Effects of a part's interventions, along `cell`: see `Moved`.

    `survives` is whether the change in similarity differs from 0 with the error of the map held. Raises
    MissingEvidenceError where the study or the part was not made.
    """
    study = study_of(evidence, name, backbone)
    lost = evidence.margins.lost_face if evidence.margins is not None else 0.0
    how = Moved(judge_of(evidence, study), lost, evidence.level, image)
    try:
        found = how(study, part)
    except StepscopeError as error:
        raise MissingEvidenceError(f"{name} on {backbone}: {error}") from error
    return found.assign(survives=("cell", found["p"].values <= LEVEL))


def as_map(found: xr.Dataset, word: str) -> tuple[np.ndarray, list[str], list[int]]:
    """A variable of a part as (block, step), NaN where there is no cell; block names, and steps."""
    blocks = list(dict.fromkeys(found["at_block"].values.tolist()))
    steps = sorted(set(found["at"].values.tolist()))
    values = np.full((len(blocks), len(steps)), np.nan)
    for block, step, value in zip(
        found["at_block"].values.tolist(),
        found["at"].values.tolist(),
        found[word].values,
        strict=True,
    ):
        values[blocks.index(block), steps.index(step)] = value
    return values, blocks, steps
