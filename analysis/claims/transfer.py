"""Does the frozen adapter carry the identity into the swapped backbone, in few steps?"""

from collections.abc import Collection

import numpy as np
import xarray as xr

from analysis.calls import seconds_an_image
from analysis.claims.asked import attempt, effect, joined, margins, wider
from analysis.compare import difference
from analysis.evidence import Evidence, MissingEvidenceError, measured, setting
from analysis.number import Number
from analysis.quantities import DISTANCES, name, perceptual, run_name
from analysis.speed import counted, times_faster
from analysis.verdict import AtLeast, AtMost, Claim, Part, Rule, Within
from hooks.errors import StepscopeError

TITLE = "Transfer"
CLAIMED = (
    "same frozen adapter, 4 steps for 28: 5.9x lower latency, ArcFace similarity +0.028, LPIPS -0.016 "
    "(FLUX.1)"
)


def claim(evidence: Evidence) -> Claim:
    """Retention and kept similarity decide; distance, speed and the few-step baseline stand beside."""
    m = margins(evidence)
    least, kept = AtLeast(m.retention), AtLeast(-m.transfer_margin)
    far, fast, same = AtMost(1 + m.distance_margin), AtLeast(m.speed), Within(m.transfer_margin)
    asked = (
        ("retention of the lift", least, retention, True),
        ("similarity kept", kept, similarity, True),
        ("similarity the same", same, equivalence, False),
        ("perceptual distance kept", far, distance, False),
        ("faster", fast, speed, False),
        ("against the baseline in as few steps", kept, few_steps, False),
        ("a lost face counted as none", kept, worst_case, False),
        ("under the other recognisers", kept, others, False),
    )
    parts = [
        attempt(title, rule.text, lambda t=title, r=rule, a=ask: a(evidence, t, r), decides=first)
        for title, rule, ask, first in asked
    ]
    return Claim(TITLE, CLAIMED, parts)


def pair(evidence: Evidence) -> tuple[xr.Dataset, xr.Dataset]:
    """The main comparison: the run of the baseline and that of the swapped backbone."""
    first, second = (evidence.one("main", backbone=b) for b in evidence.backbones)
    return first, second


def retention(evidence: Evidence, title: str, rule: Rule) -> Part:
    """What the adapter gives the swapped backbone over what it gives the baseline."""
    lifts = [lift(evidence, backbone) for backbone in evidence.backbones]
    found = Number.of(evidence.ratio(lifts[1], lifts[0]), "ratio")
    both = joined(*lifts)
    each = [Number.of(evidence.average(one), "mean") for one in lifts]
    return Part.of(
        title,
        rule,
        "lift of the swapped over lift of the baseline",
        found,
        against="the same backbone without adapter, in the same cells",
        wider=wider(evidence, both, lambda means: means[:, 1] / means[:, 0]),
        beside=[
            (f"lift of {name(backbone)}", one)
            for backbone, one in zip(evidence.backbones, each, strict=True)
        ],
        decides=True,
    )


def lift(evidence: Evidence, backbone: str) -> xr.DataArray:
    """Full adapter minus none (sample), of `weak_adapter`, else of the main run read again without."""
    try:
        runs = evidence.all("weak_adapter", backbone=backbone)
    except MissingEvidenceError:
        run = evidence.one("main", backbone=backbone)
        without = evidence.committed(run)
        return difference(without.sel(adapter_steps=0, drop=True), evidence.endpoint(run))
    by_scale = {setting(run, "adapter.scale"): evidence.endpoint(run) for run in runs}
    if 0.0 not in by_scale or len(by_scale) < 2:
        raise MissingEvidenceError("weak_adapter has no run without adapter, or none with it")
    return difference(by_scale[0.0], by_scale[full(evidence, backbone, by_scale)])


def full(evidence: Evidence, backbone: str, scales: Collection[float]) -> float:
    """The scale of the main run among these, the largest where it is not: 1.5 is no full adapter."""
    try:
        own = setting(evidence.one("main", backbone=backbone), "adapter.scale")
    except MissingEvidenceError:
        own = None
    return own if own in scales and own else max(scales)


def similarity(evidence: Evidence, title: str, rule: Rule) -> Part:
    """Swapped minus baseline, in the same face, prompt and seed."""
    runs = pair(evidence)
    judge = evidence.recogniser(runs[0])
    ends = [evidence.endpoint(run, judge) for run in runs]
    found = evidence.effect(*ends)
    return Part.of(
        title,
        rule,
        "cosine, swapped minus baseline",
        Number.of(found, "effect"),
        against=f"0 and the paper's +0.028; judge {judge}, which conditions nothing",
        wider=wider(evidence, difference(*ends)),
        beside=[
            *((f"cosine of {run_name(r)}", Number.of(evidence.average(e), "mean"))
              for r, e in zip(runs, ends, strict=True)),
            ("pairs", str(int(found["pairs"]))),
        ],
        decides=True,
    )  # fmt: skip


def equivalence(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The same difference, on both sides."""
    ends = [evidence.endpoint(run) for run in pair(evidence)]
    return Part.of(title, rule, "cosine, swapped minus baseline", effect(evidence, *ends))


def distance(evidence: Evidence, title: str, rule: Rule) -> Part:
    """LPIPS to the reference's aligned crop, or what stands in its place."""
    runs = pair(evidence)
    metric = perceptual(runs[0])
    before, after = (measured(run, metric).sel(pair="reference", drop=True) for run in runs)
    both = joined(after, before)
    return Part.of(
        title,
        rule,
        f"{DISTANCES[metric]} to the reference, swapped over baseline",
        Number.of(evidence.ratio(after, before), "ratio"),
        against="1 and the paper's LPIPS -0.016",
        wider=wider(evidence, both, lambda means: means[:, 0] / means[:, 1]),
        beside=[("swapped minus baseline", effect(evidence, before, after))],
    )


def speed(evidence: Evidence, title: str, rule: Rule) -> Part:
    """Seconds an image of the baseline over those of the swapped backbone."""
    runs = list(pair(evidence))
    return Part.of(
        title,
        rule,
        "times faster",
        times_faster(evidence, runs),
        against=f"the paper's 5.9; {counted([seconds_an_image(run) for run in runs])}",
    )


def few_steps(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The swapped backbone against the baseline at the swapped one's number of steps."""
    first, second = pair(evidence)
    steps = setting(second, "steps")
    short = evidence.one("step_budget", backbone=evidence.baseline, steps=steps)
    ends = [evidence.endpoint(run) for run in (short, second, first)]
    return Part.of(
        title,
        rule,
        f"cosine, {run_name(second)} minus {run_name(short)}",
        effect(evidence, ends[0], ends[1]),
        against="the baseline itself in as few steps, where no backbone was swapped",
        wider=wider(evidence, difference(ends[0], ends[1])),
        beside=[(
            f"cosine, {run_name(short)} minus {run_name(first)}", effect(evidence, ends[2], ends[0])
        )],
    )  # fmt: skip


def worst_case(evidence: Evidence, title: str, rule: Rule) -> Part:
    """A face that was not found is a failure of identity, not a missing number."""
    ends = [evidence.endpoint(run) for run in pair(evidence)]
    floor = margins(evidence).lost_face
    lost = [int(np.isnan(end.values).sum()) for end in ends]
    return Part.of(
        title,
        rule,
        f"cosine, swapped minus baseline, {floor:g} where no face was found",
        effect(evidence, *(end.fillna(floor) for end in ends)),
        against=f"complete pairs above; lost faces: baseline {lost[0]}, swapped {lost[1]}",
    )


def others(evidence: Evidence, title: str, rule: Rule) -> Part:
    """The difference under every other recogniser; the rule reads the lowest."""
    runs = pair(evidence)
    judge, every = evidence.recogniser(runs[0]), measured(runs[0], "final_similarity")
    found = []
    for who, circular in zip(every["recogniser"].values, every["conditioning"].values, strict=True):
        if str(who) != judge:
            number = effect(evidence, *(evidence.endpoint(run, str(who)) for run in runs))
            found.append((f"{who}{' (conditions: circular)' if circular else ''}", number))
    if not found:
        raise StepscopeError(f"{judge} is the only recogniser that measured these runs")
    lowest = min(found, key=lambda one: one[1].value)
    rest = [one for one in found if one is not lowest]
    return Part.of(title, rule, *lowest, against=f"the judge {judge}", beside=rest)
