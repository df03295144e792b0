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

CAVEAT = "x0 is blurred where the noise is high, and no control for that blur was measured."


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
    return f"final images {moved(change, measure)} from {few} to {many} steps of a whole run"


def along_the_longest(evidence: Evidence, measure: str, runs: Sequence[xr.Dataset]) -> str:
    """How far x0 comes along a run, when most of that is there, and whether the window is early."""
    run = max(runs, key=lambda one: one.sizes["step"])
    values, count = measured(run, measure + STEP), run.sizes["step"]
    if count < 2:
        return "a run of one step has no course"
    change = evidence.average(gain(values, measure))
    said = f"x0 {moved(change, measure)} along a run of {count} steps"
    if not float(change["low"]) > 0:
        return f"{said}, so that no window is told"
    up = rising(values, measure)
    estimator = ShareOfPlateau(evidence.share, origin="first")
    try:
        end = window(up, estimator, evidence.window_interval, against="step")
        last = plateau(up, level=evidence.level, against="step")
    except StepscopeError as error:
        return f"{said}; no window: {error}"
    evidence.tally.add("Fieller", last["low"], last["high"])
    if not np.isfinite(end["position"]):
        return f"{said}; no window: {end['reason'].item()}"
    done = end.assign({word: end[word] + 1 for word in ("position", "low", "high")})
    return (
        f"{said}, {evidence.share:.0%} of it within {Number.of(done, 'position', 1)} steps and "
        f"{Number.of(last, 'share', 2)} of it in the last quarter{verdict(evidence, done, last, count)}"
    )


def verdict(evidence: Evidence, done: xr.Dataset, last: xr.Dataset, count: int) -> str:
    """Whether the window is early, by the margins of the verdicts; empty without margins."""
    m = evidence.margins
    if m is None:
        return ""
    if count <= m.window_steps:
        return f" (of a run of at most {m.window_steps} steps no window is called early)"
    if float(last["low"]) > m.plateau_rise or float(done["low"]) > m.window_steps:
        return ": no early window"
    early = float(done["high"]) <= m.window_steps and float(last["high"]) <= m.plateau_rise
    return ": an early window" if early else ": undecided whether the window is early"


def moved(change: xr.Dataset, measure: str) -> str:
    """A change in words, which say that it may be none."""
    low, high = float(change["low"]), float(change["high"])
    nearer, further = ("fall", "rise") if measure in DISTANCES else ("rise", "fall")
    shown = Number.of(change, "mean") if measure not in DISTANCES else distance(change)
    if low > 0:
        return f"{nearer} by {shown}"
    if high < 0:
        turned = change.assign(mean=-change["mean"], low=-change["high"], high=-change["low"])
        shown = Number.of(turned, "mean") if measure not in DISTANCES else distance(turned)
        return f"{further} by {shown}"
    return f"neither surely rise nor fall ({shown} nearer)"


def distance(change: xr.Dataset) -> Number:
    """A Gram distance has no natural size: as many digits as three of its mean need."""
    size = abs(float(change["mean"]))
    digits = 3 if not size > 0 else max(0, 2 - int(np.floor(np.log10(size))))
    return Number.of(change, "mean", digits)
