"""After how many steps identity is present, in each way of reading it, and whether it stays."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from stepscope.analysis.bootstrap import WITHOUT
from stepscope.analysis.budgets import budgets
from stepscope.analysis.claims.estimates import attempt, crossed, margins, ratio
from stepscope.analysis.drift import lag
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.margins import MODES, Margins
from stepscope.analysis.number import Entry, Number
from stepscope.analysis.quantities import short
from stepscope.analysis.saturation import REASONS, STARTS_ABOVE, ShareOfPlateau, panel
from stepscope.analysis.verdict import Claim, Part, Verdict
from stepscope.analysis.windows import axis, plateau, saturation, window
from stepscope.hooks.errors import StepscopeError

TITLE = "Early window"
CLAIMED = "identity enters an effective regime often within 4-8 steps"
SHARES = (0.8, 0.95)
"""Shares of the plateau that are reported beside the evidence's own."""
BLURRED = ("as predicted", "carried by the latents")
"""Modes that read the estimate x0. It is blurred where sigma is high, so their control is blur."""
NULL = "the final image, blurred to the sharpness of x0 at each step"
CONTROLS = {
    "whole runs": "none: final images as they are; those of one or two steps are blurred",
    "as predicted": NULL,
    "carried by the latents": NULL,
    "committed": "not needed: final images, with the adapter off from a step on",
}


def rule(evidence: Evidence, mode: str) -> str:
    """The rule of a mode in words."""
    m = margins(evidence)
    null = "; the blur null reaches it at another step" if mode in BLURRED else ""
    return (
        f"at most {m.window_steps} steps, to {evidence.share:.0%} of the plateau and of the rise; the "
        f"last quarter of the run neither rises nor falls by {m.plateau_rise:g} of the rise{null}"
    )


def contradiction(evidence: Evidence) -> str:
    """When a mode is contradicted, and when it is undecided, in words."""
    m = margins(evidence)
    return (
        f"An early window is contradicted where the last quarter of the run has more than "
        f"{m.plateau_rise:g} of the rise, or where the whole interval of the step with "
        f"{evidence.share:.0%} of the plateau is after {m.window_steps} steps; a curve that starts above "
        "the share is undecided"
    )


@dataclass(frozen=True)
class Reading:
    """One mode's estimates. Positions are in steps done.

    of_plateau, of_rise: where the share of the plateau and of the rise is reached; reasons: why it is
    not, empty where it is. last_quarter: share of the rise in the last quarter of the run. null_lags:
    both positions minus the null's, empty for a mode without null. null_missing: why the null is unknown.
    """

    of_plateau: Number
    of_rise: Number
    reasons: tuple[str, str]
    last_quarter: Number
    null_lags: tuple[Number, ...] = ()
    null_missing: str = ""


def claim(evidence: Evidence) -> Claim:
    """A part for each mode of the baseline; the modes that the margins name decide.

    Raises StepscopeError where the evidence has no margins.
    """
    deciding = margins(evidence).window_decided_by
    parts = [
        attempt(
            mode,
            rule(evidence, mode),
            lambda mode=mode: part(evidence, mode, decides=mode in deciding),
            decides=mode in deciding,
        )
        for mode in MODES
    ]
    return Claim(TITLE, CLAIMED, parts, readings=True)


def part(evidence: Evidence, mode: str, *, decides: bool) -> Part:
    """One mode's verdict, with the other estimators of the same curve as secondary estimates."""
    values, done = curve(evidence, mode)
    last, window_steps = axis(values, "step").progress[-1] + done, margins(evidence).window_steps
    if last <= window_steps:
        raise StepscopeError(f"it ends after {last:g} steps, none after the first {window_steps}")
    estimates = reading(evidence, mode, values, done)
    verdict, reason = decide(estimates, margins(evidence))
    share = f"{evidence.share:.0%}"
    primary: list[tuple[str, Entry]] = [
        (f"steps to {share} of the plateau", entry(estimates.of_plateau, estimates.reasons[0])),
        (f"steps to {share} of the rise", entry(estimates.of_rise, estimates.reasons[1])),
    ]
    lags = zip(("plateau", "rise"), estimates.null_lags, strict=False)
    secondary: list[tuple[str, Entry]] = [
        ("last quarter's share of the rise", estimates.last_quarter),
        *(
            (f"steps to {share} of the {what}, minus the blur null's", number)
            for what, number in lags
        ),
        *other_estimators(evidence, values, done),
        *share_kept(evidence, values, mode),
    ]
    estimator, x = ShareOfPlateau(evidence.share), axis(values, "step").progress
    wider: Entry = ""
    if not np.isnan(
        estimates.of_plateau.low
    ):  # what is undefined over faces is so over all factors
        wider = crossed(
            evidence, values, lambda y: saturation(estimator, y, x).position, digits=1, shift=done
        )
    text = rule(evidence, mode)
    return Part(mode, text, verdict, primary, CONTROLS[mode], wider, secondary, reason, decides)


def curve(evidence: Evidence, mode: str) -> tuple[xr.DataArray, int]:
    """Identity (sample, point) in a mode, and what to add to its coordinate for steps done.

    The estimate x0 at step 7 is the eighth evaluation, so that 1 is added. Raises MissingEvidenceError.
    """
    if mode == "whole runs":
        return budgets(evidence, evidence.some("step_budget", backbone=evidence.baseline)), 0
    run = evidence.one("trajectory", backbone=evidence.baseline)
    if mode == "as predicted":
        return evidence.identity(run), 1
    if mode == "carried by the latents":  # x_t holds what the steps before it have written
        return evidence.carried(run), 0
    return evidence.committed(run), 0


def reading(evidence: Evidence, mode: str, values: xr.DataArray, done: int) -> Reading:
    """The estimates that the rule reads, from identity (sample, point)."""
    estimators = [ShareOfPlateau(evidence.share, origin=origin) for origin in ("zero", "first")]
    windows = [window(values, e, evidence.window_interval, against="step") for e in estimators]
    positions = [position(one, done) for one in windows]
    end = plateau(values, level=evidence.level, against="step")
    evidence.tally.add("Fieller", end["low"], end["high"])
    null_lags, null_missing = (), ""
    if mode in BLURRED:
        try:
            null = evidence.blur_null(evidence.one("trajectory", backbone=evidence.baseline))
            null_lags = tuple(lag_behind_null(evidence, values, null, e) for e in estimators)
        except StepscopeError as error:
            null_missing = str(error)
    reasons = (windows[0]["reason"].item(), windows[1]["reason"].item())
    last_quarter = Number.of(end, "share", 2)
    return Reading(positions[0], positions[1], reasons, last_quarter, null_lags, null_missing)


def lag_behind_null(
    evidence: Evidence, values: xr.DataArray, null: xr.DataArray, estimator: ShareOfPlateau
) -> Number:
    """A position minus the null's; a curve that starts above its share is placed at the first step."""
    same = null.isel(sample=null["sample"].isin(values["sample"]).values)
    found = lag(
        same, values, estimator, evidence.window_interval, against="step", censored_at_start=True
    )
    return Number.of(found, "lag", 1)


def decide(estimates: Reading, m: Margins) -> tuple[Verdict, str]:
    """The rule, in this order, and the reason where one number does not show it."""
    plateau_at, rise_at = estimates.of_plateau, estimates.of_rise
    last_quarter = estimates.last_quarter
    if np.isnan([plateau_at.low, plateau_at.high]).any():
        return Verdict.UNDECIDED, plateau_at.why
    if last_quarter.low > m.plateau_rise:
        return Verdict.CONTRADICTED, "no plateau: the curve still rises at its end"
    if estimates.reasons[0] == REASONS[STARTS_ABOVE]:
        return (
            Verdict.UNDECIDED,
            "censored: the curve starts above the share, and nothing was measured before",
        )
    if plateau_at.low > m.window_steps:
        return Verdict.CONTRADICTED, "the share is reached only after the window"
    if last_quarter.high < -m.plateau_rise:
        return Verdict.UNDECIDED, "no plateau: the curve falls at its end"
    if not (-m.plateau_rise < last_quarter.low and last_quarter.high < m.plateau_rise):
        return Verdict.UNDECIDED, "no plateau is shown"
    if max(plateau_at.high, rise_at.high) > m.window_steps or np.isnan(rise_at.high):
        return Verdict.UNDECIDED, "an interval reaches beyond the window"
    if estimates.null_missing:
        return Verdict.UNDECIDED, f"the blur null is missing: {estimates.null_missing}"
    if any(not (number.low > 0 or number.high < 0) for number in estimates.null_lags):
        return Verdict.UNDECIDED, "no different from the blur null: blur alone gives this position"
    before = max(plateau_at.high, rise_at.high) < m.window_from
    note = f"earlier than the paper's window, which starts at {m.window_from} steps"
    return Verdict.SUPPORTED, note if before else ""


def position(found: xr.Dataset, done: int) -> Number:
    """A window's end in steps done."""
    value, low, high = (float(found[word]) + done for word in ("position", "low", "high"))
    return Number(value, low, high, 1, why=found.attrs.get(WITHOUT, "–"))


def entry(number: Number, reason: str) -> Entry:
    """The position, or the reason why there is none."""
    return f"none ({reason})" if reason else number


def other_estimators(
    evidence: Evidence, values: xr.DataArray, done: int
) -> list[tuple[str, Entry]]:
    """The position by other shares and estimators: a sensitivity analysis of one curve."""
    positions: list[tuple[str, Entry]] = []
    shares = [ShareOfPlateau(share) for share in SHARES if share != evidence.share]
    for estimator in (*shares, *panel(evidence.share)[1:]):
        end = window(values, estimator, evidence.window_interval, against="step")
        positions.append((short(estimator), entry(position(end, done), end["reason"].item())))
    return positions


def share_kept(evidence: Evidence, values: xr.DataArray, mode: str) -> list[tuple[str, Entry]]:
    """Committed identity at both ends of the paper's window, over that of the whole run.

    Empty for other modes.
    """
    if mode != "committed":
        return []
    m, last = margins(evidence), values.isel(adapter_steps=-1, drop=True)
    shares: list[tuple[str, Entry]] = []
    for steps in (m.window_from, m.window_steps):
        if steps in values["adapter_steps"].values:
            at = values.sel(adapter_steps=steps, drop=True)
            shares.append(
                (f"share kept, adapter off after {steps} steps", ratio(evidence, at, last, 2))
            )
    return shares
