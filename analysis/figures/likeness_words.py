"""What curves of likeness to a picture show, as sentences from their numbers."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from stepscope.analysis.budgets import budgets
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.likeness import DISTANCES, STEP, gain, rising
from stepscope.analysis.lookup import MissingEvidenceError, measured
from stepscope.analysis.number import Number
from stepscope.analysis.saturation import ShareOfPlateau
from stepscope.analysis.windows import plateau, window
from stepscope.hooks.errors import StepscopeError

CAVEAT = (
    "x0 comes nearer by denoising too: it is blurred where the noise is high, and no control for that was "
    "measured. These curves therefore decide no window; causal windows do (the adapter off from a step on)."
)


def of_measure(evidence: Evidence, label: str, measure: str, runs: Sequence[xr.Dataset]) -> str:
    """The rise of one measure over whole runs and along the longest; empty where neither was measured."""
    told = []
    for say in (over_whole_runs, along_the_longest):
        try:
            told.append(say(evidence, measure, runs))
        except MissingEvidenceError:
            continue
    return f"{label}: {'; '.join(told)}." if told else ""


def over_whole_runs(evidence: Evidence, measure: str, runs: Sequence[xr.Dataset]) -> str:
    """The change of final images between the fewest and the most steps."""
    values = budgets(evidence, runs, lambda run: measured(run, measure))
    few, many = values["budget"].values[[0, -1]].tolist()
    if few == many:
        return f"all whole runs have {few} steps"
    change = evidence.average(gain(values, measure, "budget"))
    return f"the final image {moved(change, measure)} from whole runs of {few} to those of {many} steps"


def along_the_longest(evidence: Evidence, measure: str, runs: Sequence[xr.Dataset]) -> str:
    """How far x0 comes along a run, and when most of that is there."""
    run = max(runs, key=lambda one: one.sizes["step"])
    values, count = measured(run, measure + STEP), run.sizes["step"]
    if count < 2:
        return "a run of one step has no course"
    change = evidence.average(gain(values, measure))
    said = f"x0 {moved(change, measure)} along a run of {count} steps"
    if not float(change["low"]) > 0:
        return f"{said}, so that no end of a rise is told"
    up = rising(values, measure)
    estimator = ShareOfPlateau(evidence.share, origin="first")
    try:
        end = window(up, estimator, evidence.window_interval, against="step")
        last = plateau(up, level=evidence.level, against="step")
    except StepscopeError as error:
        return f"{said}; no end of the rise: {error}"
    evidence.tally.add("Fieller", last["low"], last["high"])
    if not np.isfinite(end["position"]):
        return f"{said}; no end of the rise: {end['reason'].item()}"
    done = end.assign({word: end[word] + 1 for word in ("position", "low", "high")})
    return (
        f"{said}, {evidence.share:.0%} of it within {Number.of(done, 'position', 1)} steps and "
        f"{Number.of(last, 'share', 2)} of it in the last quarter"
    )


def moved(change: xr.Dataset, measure: str) -> str:
    """How much nearer something comes, in words, which say that it may be nothing."""
    if float(change["high"]) < 0:
        turned = change.assign(mean=-change["mean"], low=-change["high"], high=-change["low"])
        return f"moves away by {shown(turned, measure)}"
    surely = float(change["low"]) > 0
    return (
        f"comes nearer by {shown(change, measure)}"
        if surely
        else (f"does not surely come nearer ({shown(change, measure)})")
    )


def shown(change: xr.Dataset, measure: str) -> Number:
    """A change with its interval; a Gram distance has no natural size, so its mean has three digits."""
    if measure not in DISTANCES:
        return Number.of(change, "mean")
    size = abs(float(change["mean"]))
    return Number.of(change, "mean", max(0, 2 - int(np.floor(np.log10(size)))) if size > 0 else 3)
