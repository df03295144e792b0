"""The causal study of a run in which its adapter was off in some steps."""

import xarray as xr

from stepscope.analysis.causal.effects import effects
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError, setting
from stepscope.probes.usage import says


def effects_of(evidence: Evidence, run: xr.Dataset, part: str) -> xr.Dataset:
    """The part's effects in the study of this run. Raises MissingEvidenceError where it was not made."""
    backbone = str(setting(run, "backbone"))
    made = {
        name: study
        for (name, other), study in evidence.causal.items()
        if other == backbone and switches_off(study, part)
    }
    if not made:
        raise MissingEvidenceError(
            f"no causal study on {backbone} has the adapter off in some steps: {says('paper')} makes one "
            "where its causal names the experiment, with edit=adapter_window"
        )
    mine = next((name for name, study in made.items() if is_of(study, run)), None)
    if mine is None:
        raise MissingEvidenceError(
            f"{', '.join(made)} on {backbone} is of a run of another adapter or step count"
        )
    return effects(evidence, mine, backbone, part)


def switches_off(study: xr.Dataset, part: str) -> bool:
    """Whether a causal study has a part of this name, and it zeroes."""
    here = study["part"].values.astype(object) == part
    return bool(here.any() and (study["do"].values[here].astype(object) == "zero").all())


def is_of(study: xr.Dataset, run: xr.Dataset) -> bool:
    """Whether a causal study continues this run: by the run's path, or by its adapter and step count."""
    if "of" in study.attrs and "path" in run.attrs:
        return study.attrs["of"] == run.attrs["path"]
    own, other = (each.attrs.get("configuration", {}).get("adapter") for each in (run, study))
    return study.sizes["step"] == run.sizes["step"] and other in (None, own)
