"""Rules and margins: what a verdict follows from, whatever the claim."""

from dataclasses import replace

import numpy as np
import pytest

from stepscope.analysis.claims import CLAIMS
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.margins import Margins
from stepscope.analysis.number import Number
from stepscope.analysis.verdict import AtLeast, AtMost, Claim, Part, Rule, Verdict, Within
from stepscope.hooks.errors import StepscopeError
from tests.measured import MARGINS
from tests.truths import LATE, Truth

YES, NO, OPEN, GONE = Verdict
TRANSFER, WINDOW, DETAIL = CLAIMS


def asked(title: str, evidence: Evidence) -> Claim:
    return CLAIMS[title](evidence)


@pytest.mark.parametrize("decided", [("as predicted",), ("committed", "as predicted")])
def test_what_decides_is_named_in_the_margins(decided: tuple) -> None:
    evidence = Truth(carried=LATE, committed=LATE).evidence()
    found = asked(WINDOW, replace(evidence, margins=replace(MARGINS, window_decided_by=decided)))
    assert found.verdict == (YES if decided == ("as predicted",) else NO)


@pytest.mark.parametrize(
    ("rule", "yes", "no", "between"),
    [
        (AtLeast(0.9), (0.9, 1.0), (0.5, 0.89), (0.89, 0.95)),
        (AtMost(0.02), (-1.0, 0.02), (0.03, 0.1), (0.01, 0.03)),
        (Within(0.05), (-0.05, 0.05), (0.06, 0.1), (0.04, 0.06)),
        (Within(0.05), (-0.01, 0.01), (-0.1, -0.06), (-0.2, 0.2)),
    ],
)
def test_a_rule_reads_the_whole_interval(rule: Rule, yes, no, between) -> None:
    for ends, verdict in ((yes, YES), (no, NO), (between, OPEN), ((np.nan, np.nan), OPEN)):
        assert rule(Number(float(np.mean(ends)), ends[0], ends[1])) == verdict
    assert f"{getattr(rule, 'bound', getattr(rule, 'margin', None)):g}" in rule.text


@pytest.mark.parametrize(
    ("deciding", "verdict"),
    [
        ((YES, YES), YES),
        ((YES, OPEN), OPEN),
        ((YES, NO), NO),
        ((OPEN, NO, GONE), NO),
        ((YES, GONE), GONE),
        ((), GONE),
    ],
)
def test_the_pre_specified_parts_decide(deciding, verdict: Verdict) -> None:
    parts = [Part("one", "rule", each, decides=True) for each in deciding]
    beside = [Part("other", "rule", each) for each in Verdict]
    assert Claim("t", "c", parts + beside).verdict == verdict


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"window_decided_by": ("commited",)}, "no 'commited'; did you mean 'committed'"),
        ({"window_decided_by": ()}, "name at least one mode"),
        ({"transfer_margin": 0.0}, "verdict.transfer_margin=0.0: a margin must be above 0"),
        ({"retention": "most"}, "verdict.retention='most' is no number"),
        ({"lost_face": np.nan}, "verdict.lost_face=nan is no number"),
        ({"window_steps": 8.5}, r"verdict.window_steps=8.5 is no whole number"),
        ({"window_from": 9}, "verdict.window_from=9 is after verdict.window_steps=8"),
        ({"margin": 1}, "verdict: no 'margin'; did you mean"),
    ],
)
def test_a_margin_that_cannot_be_meant_is_one_line(change: dict, line: str, unchecked) -> None:
    with pytest.raises(StepscopeError, match=line):
        Margins.named({word: getattr(MARGINS, word) for word in Margins.words()} | change)
