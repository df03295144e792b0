"""Where along the steps identity is there, by each way of reading it, and whether it stays."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis.bootstrap import WITHOUT
from analysis.claims.asked import attempt, margins, wider
from analysis.drift import lag
from analysis.evidence import Evidence, budgets
from analysis.margins import MODES, Margins
from analysis.number import Entry, Number
from analysis.quantities import short
from analysis.saturation import REASONS, STARTS_ABOVE, ShareOfPlateau, panel
from analysis.verdict import Claim, Part, Verdict
from analysis.windows import axis, plateau, saturation, window
from hooks.errors import StepscopeError

TITLE = "Early window"
CLAIMED = "identity enters an effective regime often within 4-8 steps"
SHARES = (0.8, 0.95)
"""Of the plateau, beside the evidence's own."""
BLURRED = ("as predicted", "carried by the latents")
"""Modes that read the estimate x0, which is blurred where sigma is high: their control is blur."""
NULL = "the final image, blurred to the sharpness of x0 at each step"
CONTROLS = {
    "whole runs": "none: final images, but those of one or two steps are blurred as well",
    "as predicted": NULL,
    "carried by the latents": NULL,
    "committed": "none is needed: final images, without the adapter from a step on",
}


def rule(evidence: Evidence, mode: str) -> str:
    """The rule of a mode in words."""
    m = margins(evidence)
    null = "; and the null's is apart from it" if mode in BLURRED else ""
    return (
        f"at most {m.window_steps} steps, for {evidence.share:.0%} of the plateau and of the rise; and the "
        f"last quarter of the run neither rises nor falls by {m.plateau_rise:g} of the rise{null}"
    )


def contradicted(evidence: Evidence) -> str:
    """What speaks against a mode, and what leaves it open, in words."""
    m = margins(evidence)
    return (
        f"An early window is contradicted where the last quarter of the run has more than "
        f"{m.plateau_rise:g} of the rise, or {evidence.share:.0%} of the plateau comes, with its whole "
        f"interval, after {m.window_steps} steps; a curve that starts above the share is undecided"
    )


@dataclass(frozen=True)
class Reading:
    """One mode's numbers. Positions are in steps done.

    of_plateau, of_rise: where the share is reached, with reasons where it is not. still: rise of the
    last quarter as a share of the whole. apart: both positions minus their null's, none where there
    is no null; unheld: why the null is not known.
    """

    of_plateau: Number
    of_rise: Number
    reasons: tuple[str, str]
    still: Number
    apart: tuple[Number, ...] = ()
    unheld: str = ""


def claim(evidence: Evidence) -> Claim:
    """A part for each mode, of the baseline; those that the margins name decide."""
    decided = margins(evidence).window_decided_by
    parts = [
        attempt(
            mode,
            rule(evidence, mode),
            lambda mode=mode: part(evidence, mode, decides=mode in decided),
            decides=mode in decided,
        )
        for mode in MODES
    ]
    return Claim(TITLE, CLAIMED, parts, readings=True)


def part(evidence: Evidence, mode: str, *, decides: bool) -> Part:
    """One mode's verdict, with every other estimator of the same curve beside it."""
    values, done = curve(evidence, mode)
    last, window_steps = axis(values, "step").progress[-1] + done, margins(evidence).window_steps
    if last <= window_steps:
        raise StepscopeError(f"it ends after {last:g} steps, none after the first {window_steps}")
    found = reading(evidence, mode, values, done)
    verdict, reason = judged(found, margins(evidence))
    share = f"{evidence.share:.0%}"
    seen: list[tuple[str, Entry]] = [
        (f"{share} of the plateau at step", shown(found.of_plateau, found.reasons[0])),
        (f"{share} of the rise at step", shown(found.of_rise, found.reasons[1])),
    ]
    held = zip(("plateau", "rise"), found.apart, strict=False)
    beside: list[tuple[str, Entry]] = [
        ("last quarter's share of the rise", found.still),
        *((f"of the {what}, minus the null's", number) for what, number in held),
        *others(evidence, values, done),
        *kept(evidence, values, mode),
    ]
    estimator, x = ShareOfPlateau(evidence.share), axis(values, "step").progress
    crossed = wider(
        evidence, values, lambda y: saturation(estimator, y, x).position, digits=1, shift=done
    )
    return Part(
        mode, rule(evidence, mode), verdict, seen, CONTROLS[mode], crossed, beside, reason, decides
    )


def curve(evidence: Evidence, mode: str) -> tuple[xr.DataArray, int]:
    """Identity in a mode, and what turns its coordinate into steps done: step 7 is the eighth."""
    if mode == "whole runs":
        return budgets(evidence, evidence.some("step_budget", backbone=evidence.baseline)), 0
    run = evidence.one("trajectory", backbone=evidence.baseline)
    if mode == "as predicted":
        return evidence.identity(run), 1
    if mode == "carried by the latents":  # of x_t: what the steps before have written
        return evidence.carried(run), 0
    return evidence.committed(run), 0


def reading(evidence: Evidence, mode: str, values: xr.DataArray, done: int) -> Reading:
    """The numbers that the rule reads."""
    both = [ShareOfPlateau(evidence.share, origin=origin) for origin in ("zero", "first")]
    found = [window(values, one, evidence.window_interval, against="step") for one in both]
    positions = [position(one, done) for one in found]
    end = plateau(values, level=evidence.level, against="step")
    evidence.tally.add("Fieller", end["low"], end["high"])
    apart, unheld = (), ""
    if mode in BLURRED:
        try:
            null = evidence.blur_null(evidence.one("trajectory", backbone=evidence.baseline))
            apart = tuple(minus(evidence, values, null, one) for one in both)
        except StepscopeError as error:
            unheld = str(error)
    reasons = (found[0]["reason"].item(), found[1]["reason"].item())
    still = Number.of(end, "share", 2)
    return Reading(positions[0], positions[1], reasons, still, apart, unheld)


def minus(
    evidence: Evidence, values: xr.DataArray, null: xr.DataArray, estimator: ShareOfPlateau
) -> Number:
    """A position minus its null's; a curve that starts above its share counts from the first step."""
    same = null.isel(sample=null["sample"].isin(values["sample"]).values)
    found = lag(
        same, values, estimator, evidence.window_interval, against="step", censored_at_start=True
    )
    return Number.of(found, "lag", 1)


def judged(found: Reading, m: Margins) -> tuple[Verdict, str]:
    """The rule, in this order; and why, where one number does not show it."""
    early, rise, still = found.of_plateau, found.of_rise, found.still
    if np.isnan([early.low, early.high]).any():
        return Verdict.UNDECIDED, early.why
    if still.low > m.plateau_rise:
        return Verdict.CONTRADICTED, "no plateau: it still rises at its end"
    if found.reasons[0] == REASONS[STARTS_ABOVE]:
        return (
            Verdict.UNDECIDED,
            "censored: it starts above the share, before which nothing was seen",
        )
    if early.low > m.window_steps:
        return Verdict.CONTRADICTED, "reached only after the window"
    if still.high < -m.plateau_rise:
        return Verdict.UNDECIDED, "no plateau: it falls at its end"
    if not (-m.plateau_rise < still.low and still.high < m.plateau_rise):
        return Verdict.UNDECIDED, "no plateau is shown"
    if max(early.high, rise.high) > m.window_steps or np.isnan(rise.high):
        return Verdict.UNDECIDED, "an interval reaches beyond the window"
    if found.unheld:
        return Verdict.UNDECIDED, f"its null is not known: {found.unheld}"
    if any(not (number.low > 0 or number.high < 0) for number in found.apart):
        return Verdict.UNDECIDED, "not told from its null: blur alone would put it there"
    before = max(early.high, rise.high) < m.window_from
    told = f"earlier than the {m.window_from} steps from which the paper's window runs"
    return Verdict.SUPPORTED, told if before else ""


def position(found: xr.Dataset, done: int) -> Number:
    """A window's end in steps done."""
    value, low, high = (float(found[word]) + done for word in ("position", "low", "high"))
    return Number(value, low, high, 1, why=found.attrs.get(WITHOUT, "–"))


def shown(number: Number, reason: str) -> Entry:
    """The position, or why there is none."""
    return f"none ({reason})" if reason else number


def others(evidence: Evidence, values: xr.DataArray, done: int) -> list[tuple[str, Entry]]:
    """The position by other shares and estimators: sensitivity of one curve, no witnesses of their own."""
    found: list[tuple[str, Entry]] = []
    shares = [ShareOfPlateau(share) for share in SHARES if share != evidence.share]
    for estimator in (*shares, *panel(evidence.share)[1:]):
        one = window(values, estimator, evidence.window_interval, against="step")
        found.append((short(estimator), shown(position(one, done), one["reason"].item())))
    return found


def kept(evidence: Evidence, values: xr.DataArray, mode: str) -> list[tuple[str, Entry]]:
    """Of committed identity: the share of the whole run's that is kept at both ends of the window."""
    if mode != "committed":
        return []
    m, last = margins(evidence), values.isel(adapter_steps=-1, drop=True)
    found: list[tuple[str, Entry]] = []
    for steps in (m.window_from, m.window_steps):
        if steps in values["adapter_steps"].values:
            at = values.sel(adapter_steps=steps, drop=True)
            share = Number.of(evidence.ratio(at, last), "ratio", 2)
            found.append((f"share kept, adapter off after {steps} steps", share))
    return found
