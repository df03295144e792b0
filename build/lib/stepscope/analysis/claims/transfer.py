"""Does the frozen adapter give the swapped backbone the same identity, in few steps?"""

from dataclasses import replace

import numpy as np
import xarray as xr

from stepscope.analysis.calls import seconds_an_image
from stepscope.analysis.claims.estimates import (
    adapter_off_and_on,
    attempt,
    crossed,
    effect,
    margins,
    mean,
    ratio,
    stack_pairs,
)
from stepscope.analysis.compare import difference
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.lookup import MissingEvidenceError, measured, setting
from stepscope.analysis.number import Number
from stepscope.analysis.quantities import DISTANCES, name, perceptual, run_name
from stepscope.analysis.speed import describe_calls, times_faster
from stepscope.analysis.verdict import AtLeast, AtMost, Claim, Part, Rule, Within
from stepscope.hooks.errors import StepscopeError

TITLE = "Transfer"
CLAIMED = (
    "same frozen adapter, 4 steps for 28: 5.9x lower latency, ArcFace similarity +0.028, LPIPS -0.016 "
    "(FLUX.1)"
)


def claim(evidence: Evidence) -> Claim:
    """Retention of the lift and similarity that is not lower decide; the other parts do not.

    Raises StepscopeError where the evidence has no margins.
    """
    m = margins(evidence)
    least, not_lower = AtLeast(m.retention), AtLeast(-m.transfer_margin)
    far, fast, same = AtMost(1 + m.distance_margin), AtLeast(m.speed), Within(m.transfer_margin)
    questions = (
        ("retention of the lift", least, retention, True),
        ("similarity not lower", not_lower, similarity, True),
        ("similarity equivalent", same, equivalence, False),
        ("perceptual distance not higher", far, distance, False),
        ("faster", fast, speed, False),
        ("similarity against the baseline at the same step count", not_lower, few_steps, False),
        ("similarity, lost faces counted as failures", not_lower, worst_case, False),
        ("similarity under the other recognisers", not_lower, other_recognisers, False),
    )
    parts = [
        attempt(title, rule.text, lambda t=title, r=rule, a=ask: a(evidence, t, r), decides=decides)
        for title, rule, ask, decides in questions
    ]
    return Claim(TITLE, CLAIMED, parts)


def pair(evidence: Evidence) -> tuple[xr.Dataset, xr.Dataset]:
    """The main comparison: the run of the baseline and that of the swapped backbone."""
    first, second = (evidence.one("main", backbone=b) for b in evidence.backbones)
    return first, second


def retention(evidence: Evidence, title: str, rule: Rule) -> Part:
    """What the adapter gives the swapped backbone over what it gives the baseline."""
    lifts = [lift(evidence, backbone) for backbone in evidence.backbones]
    both, least = stack_pairs(*lifts), margins(evidence).least_lift
    share = ratio(evidence, lifts[1], lifts[0])
    if not mean(evidence, lifts[0]).low >= least:
        why = f"the lift of {name(evidence.baseline)} is not shown to be at least {least:g}"
        share = replace(share, low=np.nan, high=np.nan, why=why)
    return Part.of(
        title,
        rule,
        "lift of the swapped backbone over lift of the baseline",
        share,
        control="the same backbone without adapter, in the same cells",
        crossed=crossed(evidence, both, lambda means: means[:, 1] / means[:, 0]),
        secondary=[
            (f"lift of {name(backbone)}", mean(evidence, one))
            for backbone, one in zip(evidence.backbones, lifts, strict=True)
        ],
        decides=True,
    )


def final_similarity(evidence: Evidence, *runs: xr.Dataset) -> list[xr.DataArray]:
    """Similarity (sample) of the final images of each run, under the recogniser of the first."""
    judge = evidence.recogniser(runs[0])
    return [evidence.endpoint(run, judge) for run in runs]


def lift(evidence: Evidence, backbone: str) -> xr.DataArray:
    """Similarity (sample) with the full adapter minus without, in the runs of `weak_adapter`.

    Without that experiment the main run is compared with itself, read again with the adapter off from
    the first step. Raises MissingEvidenceError where neither was made.
    """
    try:
        runs = evidence.all("weak_adapter", backbone=backbone)
    except MissingEvidenceError:
        run = evidence.one("main", backbone=backbone)
        without = evidence.committed(run)
        return difference(without.sel(adapter_steps=0, drop=True), evidence.endpoint(run))
    return difference(*adapter_off_and_on(runs, evidence.endpoint, main_scale(evidence, backbone)))


def main_scale(evidence: Evidence, backbone: str) -> float | None:
    """The adapter scale of the main run, which is that of the full adapter; None without that run."""
    try:
        return setting(evidence.one("main", backbone=backbone), "adapter.scale")
    except MissingEvidenceError:
        return None


def similarity(evidence: Evidence, title: str, rule: Rule) -> Part:
    """Swapped minus baseline, paired by face, prompt and seed."""
    runs = pair(evidence)
    judge, floor = evidence.recogniser(runs[0]), margins(evidence).lost_face
    ends, reason = final_similarity(evidence, *runs), ""
    lost = [run_name(r) for r, end in zip(runs, ends, strict=True) if end.isnull().all()]
    if lost:  # every image was measured and none has a face, which is a result
        ends = [end.fillna(floor) for end in ends]
        reason = f"no face was found in any image of {lost[0]}: each counts as {floor:g}"
    found = evidence.effect(*ends)
    more = {"reason": reason} if reason else {}
    return Part.of(
        title,
        rule,
        "cosine, swapped minus baseline",
        Number.of(found, "effect"),
        control=f"0 and the paper's +0.028; recogniser {judge}, which does not condition the adapter",
        crossed=crossed(evidence, difference(*ends)),
        secondary=[
            *((f"cosine of {run_name(r)}", mean(evidence, e))
              for r, e in zip(runs, ends, strict=True)),
            ("pairs", str(int(found["pairs"]))),
        ],
        decides=True,
        **more,
    )  # fmt: skip


def equivalence(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The same difference, bounded on both sides."""
    ends = final_similarity(evidence, *pair(evidence))
    return Part.of(title, rule, "cosine, swapped minus baseline", effect(evidence, *ends))


def distance(evidence: Evidence, title: str, rule: Rule) -> Part:
    """LPIPS, or its substitute for pocket models, to the reference's aligned crop."""
    runs = pair(evidence)
    metric = perceptual(runs[0])
    before, after = (measured(run, metric).sel(pair="reference", drop=True) for run in runs)
    both = stack_pairs(after, before)
    return Part.of(
        title,
        rule,
        f"{DISTANCES[metric]} to the reference, swapped over baseline",
        ratio(evidence, after, before),
        control="1 and the paper's LPIPS -0.016",
        crossed=crossed(evidence, both, lambda means: means[:, 0] / means[:, 1]),
        secondary=[("swapped minus baseline", effect(evidence, before, after))],
    )


def speed(evidence: Evidence, title: str, rule: Rule) -> Part:
    """Seconds an image of the baseline over those of the swapped backbone."""
    runs = list(pair(evidence))
    return Part.of(
        title,
        rule,
        "times faster",
        times_faster(evidence, runs),
        control=f"the paper's 5.9; {describe_calls([seconds_an_image(run) for run in runs])}",
    )


def few_steps(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The swapped backbone minus the baseline at the swapped backbone's number of steps."""
    first, second = pair(evidence)
    steps = setting(second, "steps")
    short = evidence.one("step_budget", backbone=evidence.baseline, steps=steps)
    ends = final_similarity(evidence, first, short, second)[1:] + final_similarity(evidence, first)
    return Part.of(
        title,
        rule,
        f"cosine, {run_name(second)} minus {run_name(short)}",
        effect(evidence, ends[0], ends[1]),
        control="the baseline itself at that step count, with no backbone swapped",
        crossed=crossed(evidence, difference(ends[0], ends[1])),
        secondary=[(
            f"cosine, {run_name(short)} minus {run_name(first)}", effect(evidence, ends[2], ends[0])
        )],
    )  # fmt: skip


def worst_case(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The difference where an image without a face has the similarity `lost_face` of the margins."""
    ends = final_similarity(evidence, *pair(evidence))
    floor = margins(evidence).lost_face
    lost = [int(np.isnan(end.values).sum()) for end in ends]
    return Part.of(
        title,
        rule,
        f"cosine, swapped minus baseline, {floor:g} where no face was found",
        effect(evidence, *(end.fillna(floor) for end in ends)),
        control=f"the complete pairs above; lost faces: baseline {lost[0]}, swapped {lost[1]}",
    )


def other_recognisers(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The difference under every other recogniser; the rule reads the lowest."""
    runs = pair(evidence)
    judge, every = evidence.recogniser(runs[0]), measured(runs[0], "final_similarity")
    effects = []
    for who, circular in zip(every["recogniser"].values, every["conditioning"].values, strict=True):
        if str(who) != judge:
            number = effect(evidence, *(evidence.endpoint(run, str(who)) for run in runs))
            effects.append((f"{who}{' (conditions: circular)' if circular else ''}", number))
    if not effects:
        raise StepscopeError(f"{judge} is the only recogniser that measured these runs")
    lowest = min(effects, key=lambda one: one[1].value)
    rest = [one for one in effects if one is not lowest]
    return Part.of(
        title, rule, *lowest, control=f"the evaluation recogniser {judge}", secondary=rest
    )
