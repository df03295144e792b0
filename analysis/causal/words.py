"""What a causal study shows, as sentences from its numbers: the paragraph beside each figure."""

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from stepscope.analysis.causal.effects import effects, judge_of, study_of
from stepscope.analysis.causal.steered import shares
from stepscope.analysis.causal.swaps import crossing, swapped
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.quantities import name
from stepscope.probes.interventions.names import ANCHOR


def of_backbones(evidence: Evidence, say: Callable[[Evidence, str], str]) -> str:
    """A sentence or more for each backbone of which the study was made; empty without one."""
    found = []
    for backbone in evidence.backbones:
        try:
            found.append(f"{name(backbone)}: {say(evidence, backbone)}")
        except MissingEvidenceError:
            continue
    return " ".join(found)


def adapter_window(evidence: Evidence, backbone: str) -> str:
    """The fewest first steps that are enough, and how many single steps and blocks are necessary."""
    first = effects(evidence, "adapter_window", backbone, "first steps")
    study = study_of(evidence, "adapter_window", backbone)
    said = enough(evidence, first, study.sizes["step"])
    places = (
        ("all but one step", bins(study, "every")),
        ("all but one block", bins(study, "together")),
    )
    need = [
        surviving(effects(evidence, "adapter_window", backbone, part), what)
        for part, what in places
    ]
    return f"{said}; off there alone, identity changes in {' and in '.join(need)}."


def enough(evidence: Evidence, first: xr.Dataset, steps: int, what: str = "identity") -> str:
    """The fewest first steps with the adapter, of those that were tried, that leave enough of `what`."""
    share = evidence.margins.retention if evidence.margins is not None else 0.9
    if of_little(evidence, first):
        lift = float(first["lift"][0])
        return f"with the adapter on and off the judge's cosine differs by {lift:.3f} alone"
    some = first.isel(cell=np.flatnonzero(first["kept_low"].values >= share))
    if not some.sizes["cell"]:
        best = _best(first)
        return (
            f"no number of first steps that was tried surely leaves {share:.0%} of {what} ({best})"
        )
    cell = some.isel(cell=int(np.argmin(some["at"].values)))
    return f"the adapter in the first {int(cell['at'])} of {steps} steps leaves {_share(cell)} of {what}"


def of_little(evidence: Evidence, found: xr.Dataset) -> bool:
    """Whether shares are of less than `least_lift` of a cosine: of so little no share is asked for."""
    least = evidence.margins.least_lift if evidence.margins is not None else 0.0
    cosine = found.attrs["judge"] != "edited_style_gram"
    return cosine and bool((np.abs(found["lift"]) < least).all())


def face_swap(evidence: Evidence, backbone: str) -> str:
    """The sigma at which both people are equally present, and the cells that move in each control."""
    study = study_of(evidence, "face_swap", backbone)
    lost = evidence.margins.lost_face if evidence.margins is not None else 0.0
    where = crossing(swapped(study, judge_of(evidence, study), lost), evidence)
    if np.isfinite(float(where["position"])):
        low, high = sorted((float(where["low"]), float(where["high"])))
        between = f" [{low:.2f}, {high:.2f}]" if np.isfinite([low, high]).all() else ""
        said = (
            f"the final image is as near to one person as to the other where the face changes at sigma "
            f"{float(where['position']):.2f}{between}."
        )
    else:
        said = "the final image is never as near to one person as to the other."
    controls = [
        told for part, tell in SWAP_CONTROLS.items() if (told := tell(evidence, backbone, part))
    ]
    return f"{said} Controls: {'; '.join(controls)}." if controls else said


def _photo(evidence: Evidence, backbone: str, part: str) -> str:
    found = _made(evidence, backbone, part)
    return "" if found is None else f"{surviving(found, 'cells')} change with another photo"


def _nobody(evidence: Evidence, backbone: str, part: str) -> str:
    """The largest share of the way to the second person that a random face goes."""
    found = _made(evidence, backbone, part)
    if found is None or not np.isfinite(found["gained"]).any():
        return ""
    cell = found.isel(cell=int(np.nanargmax(found["gained"].values)))
    return (
        f"a random face as far away goes at most {_share(cell, 'gained')} of the way to the second"
    )


def _shuffled(evidence: Evidence, backbone: str, part: str) -> str:
    """At half of the steps, or as near to it as there is, first steps and as many at random places."""
    found, plain = _made(evidence, backbone, part), _made(evidence, backbone, "another person")
    if found is None or plain is None:
        return ""
    steps = study_of(evidence, "face_swap", backbone).sizes["step"]
    k = int(np.argmin(np.abs(found["at"].values - steps / 2)))
    count = int(found["at"].values[k])
    last = plain.isel(cell=np.flatnonzero(plain["at"].values == steps - count))
    if not last.sizes["cell"]:
        return ""
    return (
        f"the second face in {count} of {steps} steps at random places goes "
        f"{_share(found.isel(cell=k), 'gained')} of the way, and in the last {count} "
        f"{_share(last.isel(cell=0), 'gained')}"
    )


def _made(evidence: Evidence, backbone: str, part: str) -> xr.Dataset | None:
    """The effects of a part, None where it was not made."""
    try:
        return effects(evidence, "face_swap", backbone, part)
    except MissingEvidenceError:
        return None


SWAP_CONTROLS: Mapping[str, Callable[[Evidence, str, str], str]] = {
    "another photo": _photo,
    "at random": _nobody,
    "another person in shuffled steps": _shuffled,
}


def branch(evidence: Evidence, backbone: str) -> str:
    """What is left of identity where the run goes on with something else from the earliest step on."""
    study, said = study_of(evidence, "branch", backbone), []
    for part in dict.fromkeys(study["part"].values.tolist()):
        if part == ANCHOR:
            continue
        found = effects(evidence, "branch", backbone, part)
        cell = found.isel(cell=int(np.argmin(found["at"].values)))
        said.append(
            f"{part} from step {int(cell['at'])} on leaves {_share(cell)} of identity and changes pixels "
            f"outside the face by {float(cell['outside']):.2f}"
        )
    return f"{'; '.join(said)} (of {study.sizes['step']} steps)."


def transplant(evidence: Evidence, backbone: str) -> str:
    """How many cells of each map survive, and the largest share of the way to the other person."""
    said = []
    for part in ("adapter", "attention", "residual"):
        found = effects(evidence, "transplant", backbone, part)
        cell = found.isel(cell=int(np.nanargmax(found["gained"].fillna(-np.inf).values)))
        said.append(
            f"{part}, {surviving(found, 'cells')} (most from step {int(cell['at'])}, "
            f"{cell['at_block'].item()}: {_share(cell, 'gained')} of the way)"
        )
    controls = [
        surviving(effects(evidence, "transplant", backbone, part), what)
        for part, what in (
            ("adapter of another photo", "with another photo"),
            ("adapter at random", "in a random direction"),
        )
    ]
    study = study_of(evidence, "transplant", backbone)
    cells = f"cells ({bins(study, 'every')} x {bins(study, 'together')}) that change identity"
    return f"{cells}: {'; '.join(said)}. Controls: {', '.join(controls)}."


def directions(evidence: Evidence, backbone: str) -> str:
    """The share of identity that the directions make, each once, beside a random one."""
    some = [
        f"{one.label} {_bounds(one.share, one.low, one.high)}"
        for one in shares(evidence, "directions", backbone)
        if one.group == "given"
        and one.label.startswith(("own", "random"))
        and one.label.endswith(" x 1")
    ]
    return f"share of identity that is made by a direction, given once: {'; '.join(some)}."


def bins(study: xr.Dataset, word: str) -> str:
    """What a study's windows are of: steps (`every`) or blocks (`together`), or bins of several."""
    what = {"every": "steps", "together": "blocks"}[word]
    count = int(study.attrs.get("intervention", {}).get(word, 1))
    return what if count == 1 else f"groups of {count} {what}"


def surviving(found: xr.Dataset, what: str) -> str:
    """How many cells differ from 0 with the error of the map held."""
    return f"{int(found['survives'].sum())} of {found.sizes['cell']} {what}"


def _share(cell: xr.Dataset, word: str = "kept") -> str:
    return _bounds(*(float(cell[word + end]) for end in ("", "_low", "_high")))


def _bounds(value: float, low: float, high: float) -> str:
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _best(found: xr.Dataset) -> str:
    if not np.isfinite(found["kept"].values).any():
        return "there is nothing to divide by"
    cell = found.isel(cell=int(np.nanargmax(found["kept"].values)))
    return f"most with {int(cell['at'])}: {_share(cell)}"
