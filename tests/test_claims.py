"""Opposite truths get opposite verdicts, and every word of them follows from a number with a rule."""

from dataclasses import replace

import numpy as np
import pytest

from stepscope.analysis.claims import CLAIMS, claims
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.margins import MODES
from stepscope.analysis.synthetic import Approach
from stepscope.analysis.verdict import Claim, Part, Verdict
from stepscope.hooks.errors import StepscopeError
from tests import truths
from tests.measured import MARGINS, measured_run
from tests.truths import EARLY, LATE, Truth, flat, hinge, straight

YES, NO, OPEN, GONE = Verdict
TRANSFER, WINDOW, DETAIL = CLAIMS
LIKE = Approach(4.0)


def asked(title: str, evidence: Evidence) -> Claim:
    return CLAIMS[title](evidence)


def part(claim: Claim, name: str) -> Part:
    return next(one for one in claim.parts if one.name == name)


@pytest.mark.parametrize(
    ("truth", "verdict", "parts"),
    {
        "equal": (Truth(), YES, {"similarity equivalent": YES, "faster": YES}),
        "better": (Truth(swapped=0.9), YES, {"similarity equivalent": NO}),
        "4 % of the lift": (
            Truth(swapped=0.02 + 0.04 * 0.78),
            NO,
            {"retention of the lift": NO, "similarity not lower": NO},
        ),
        "at the margin": (
            Truth(swapped=0.75),
            OPEN,
            {
                "retention of the lift": YES,
                "similarity not lower": OPEN,
                "similarity equivalent": OPEN,
            },
        ),
        "no adapter works": (
            Truth(baseline=0.02, swapped=0.02, few=0.02),
            OPEN,
            {"retention of the lift": OPEN, "similarity not lower": YES},
        ),
        "the swap is no better than few steps": (
            Truth(swapped=0.7, few=0.8),
            NO,
            {"similarity against the baseline at the same step count": NO},
        ),
        "further from the portrait": (
            Truth(distances=(0.3, 0.4)),
            YES,
            {"perceptual distance not higher": NO},
        ),
        "slower": (Truth(seconds=(1.0, 6.0)), YES, {"faster": NO}),
    }.values(),
    ids=lambda value: "",
)
def test_transfer_is_what_the_levels_are(truth: Truth, verdict: Verdict, parts: dict) -> None:
    found = asked(TRANSFER, truth.evidence())
    assert {name: part(found, name).verdict for name in parts} == parts
    assert found.verdict == verdict


ALL = dict.fromkeys(MODES, YES)
WINDOWS = {
    "early in every reading": (Truth(), YES, ALL),
    "late in every reading": (
        Truth(whole=LATE, predicted=LATE, carried=LATE, committed=LATE, null=EARLY),
        NO,
        dict.fromkeys(MODES, NO),
    ),
    "early as predicted, late in the latents": (
        Truth(carried=LATE, committed=LATE, null=LATE),
        NO,
        {"as predicted": YES, "carried by the latents": NO, "committed": NO},
    ),
    "late as predicted, early in the latents": (
        Truth(predicted=LATE, null=EARLY),
        YES,
        {"as predicted": NO, "committed": YES},
    ),
    "a straight line from 0": (Truth(committed=straight(0)), NO, {"committed": NO}),
    "a straight line from .85": (
        Truth(committed=straight(0.85), predicted=straight(0.85), null=EARLY),
        NO,
        {"committed": NO, "as predicted": NO},
    ),
    "above the share from the start": (
        Truth(committed=flat, predicted=flat, carried=flat),
        OPEN,
        {"committed": OPEN, "as predicted": OPEN, "carried by the latents": OPEN},
    ),
    "just across the window's end": (
        Truth(committed=hinge(8.9), noise=0.06),
        OPEN,
        {"committed": OPEN},
    ),
    "where blur alone would put it": (
        Truth(null=EARLY),
        YES,
        {"as predicted": OPEN, "committed": YES},
    ),
    "it comes early and is lost again": (
        Truth(baseline=0.2, committed=lambda s: np.interp(s, [0, 5, 28], [0, 4, 1]), few=0.2),
        OPEN,
        {"committed": OPEN},
    ),
    "too few faces": (Truth(faces=3), OPEN, {"committed": OPEN, "as predicted": OPEN}),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_the_window_is_where_each_reading_has_it(name: str) -> None:
    truth, verdict, parts = WINDOWS[name]
    found = asked(WINDOW, truth.evidence())
    assert {mode: part(found, mode).verdict for mode in parts} == parts
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        (Truth(faces=3), "needs 5 faces; here 3"),
        (Truth(committed=flat), "censored: the curve starts above the share"),
        (Truth(committed=straight(0.85)), "no plateau: the curve still rises at its end"),
        (Truth(committed=LATE), "the share is reached only after the window"),
        (
            Truth(committed=Approach(0.7)),
            "earlier than the paper's window, which starts at 4 steps",
        ),
        (Truth(committed=hinge(8.9), noise=0.06), "an interval reaches beyond the window"),
    ],
)
def test_what_the_numbers_do_not_show_is_said(truth: Truth, told: str) -> None:
    assert told in part(asked(WINDOW, truth.evidence()), "committed").reason


def test_it_names_the_readings_in_which_the_claim_survives() -> None:
    mixed = asked(WINDOW, Truth(carried=LATE, committed=LATE).evidence())
    assert "Supported when read as: whole runs, as predicted" in mixed.survives
    assert "Contradicted when read as: carried by the latents, committed" in mixed.survives
    assert mixed.verdict == NO


def test_a_mode_that_was_not_measured_is_none_and_decides_nothing_but_its_own() -> None:
    found = asked(WINDOW, Truth().evidence(gone=["step_budget"]))
    assert part(found, "whole runs").verdict == GONE
    assert "experiments=[step_budget]" in part(found, "whole runs").reason
    assert found.verdict == YES
    alone = asked(
        WINDOW,
        Truth().evidence(
            without=["carried_similarity", "null_similarity", "similarity"], gone=["step_budget"]
        ),
    )
    assert [p.verdict for p in alone.parts] == [GONE, GONE, GONE, YES]
    silent = asked(WINDOW, Truth().evidence(without=["committed_similarity"]))
    assert silent.verdict == GONE
    assert "metrics=[arcface_committed]" in part(silent, "committed").reason


def test_a_run_that_ends_within_the_window_shows_no_window(monkeypatch) -> None:
    monkeypatch.setattr(truths, "STEPS", 8)
    monkeypatch.setattr(truths, "OFF_FROM", tuple(range(9)))
    found = asked(WINDOW, Truth(committed=hinge(5)).evidence())
    assert part(found, "committed").verdict == GONE
    assert part(found, "committed").reason == "it ends after 8 steps, none after the first 8"


def test_the_full_adapter_is_that_of_the_main_run_and_not_a_larger_scale() -> None:
    truth = Truth()
    told, rng = truth.evidence(), np.random.default_rng(0)
    more = truth.ended(rng, dict.fromkeys(range(8), 0.0), "pocket_dev", 28, 0.3, 1.5)
    weak = [*told.runs["weak_adapter"], more]
    found = [asked(TRANSFER, replace(told, runs={**told.runs, "weak_adapter": w}))
             for w in (weak, weak[:-1])]  # fmt: skip
    assert [part(f, "retention of the lift").sentence for f in found[:1]] == [
        part(found[1], "retention of the lift").sentence
    ]


def test_one_judge_reads_both_runs_and_a_recogniser_of_one_alone_is_said() -> None:
    def told(*recognisers: str) -> Claim:
        pair = [measured_run(), measured_run("pocket_schnell", 4, recognisers=recognisers)]
        return asked(
            TRANSFER,
            Evidence(
                {"main": pair}, baseline="pocket_dev", swapped="pocket_schnell", margins=MARGINS
            ),
        )

    assert (
        "'identity' did not"
        in part(told("pocket"), "similarity under the other recognisers").reason
    )
    assert "'pocket' did not" in part(told("another"), "similarity not lower").reason


def test_a_ratio_without_an_interval_has_none_over_prompts_either() -> None:
    found = asked(TRANSFER, Truth(none=0.8, baseline=0.5, swapped=0.45).evidence())
    assert part(found, "retention of the lift").crossed == ""


def test_without_its_null_a_reading_of_x0_claims_no_window() -> None:
    found = asked(WINDOW, Truth().evidence(without=["null_similarity"]))
    assert part(found, "as predicted").verdict == OPEN
    assert part(found, "as predicted").reason.startswith("the blur null is missing")


@pytest.mark.parametrize(
    ("truth", "verdict", "parts"),
    [
        (Truth(), YES, {"contrast still rises": YES}),
        (  # detail first
            Truth(predicted=LATE, carried=LATE, sharp=EARLY, null=EARLY, contrast=EARLY),
            NO,
            {
                "sharpness has more of its rise left than identity": NO,
                "sharpness lags identity, beyond the blur null": NO,
                "sharpness lags carried identity": NO,
            },
        ),
        (  # one and the same curve
            Truth(predicted=LIKE, carried=LIKE, sharp=LIKE, null=LIKE),
            OPEN,
            {
                "sharpness still rises": YES,
                "sharpness has more of its rise left than identity": OPEN,
                "sharpness lags identity, beyond the blur null": OPEN,
            },
        ),
        (Truth(null=EARLY), OPEN, {"sharpness lags identity, beyond the blur null": OPEN}),
        (Truth(carried=Approach(9.0)), YES, {"sharpness lags carried identity": NO}),
        (Truth(sharp=lambda s: 2 - s / 28), NO, {"sharpness still rises": NO}),
        (Truth(faces=3), OPEN, {"sharpness lags identity, beyond the blur null": OPEN}),
        (  # blur costs the judge nothing, or helps it: a null that does not rise has no end
            Truth(null=lambda s: 1 - s / 280),
            OPEN,
            {"sharpness lags identity, beyond the blur null": OPEN},
        ),
        (  # a share of a rise that is none
            Truth(predicted=lambda s: np.interp(s, [0, 1, 8, 28], [1.1, 1.1, 1.3, 1])),
            OPEN,
            {"sharpness has more of its rise left than identity": OPEN},
        ),
        (
            Truth(sharp=lambda s: 2 - LATE(s)),
            NO,
            {
                "sharpness has more of its rise left than identity": OPEN,
                "sharpness lags carried identity": OPEN,
            },
        ),
    ],
    ids=[
        "early and late",
        "detail first",
        "alike",
        "blur",
        "carried late",
        "falls",
        "few faces",
        "null falls",
        "identity falls",
        "sharpness falls",
    ],
)
def test_later_detail_is_read_from_the_lag_and_both_gains(
    truth: Truth, verdict: Verdict, parts: dict
) -> None:
    found = asked(DETAIL, truth.evidence())
    assert {name: part(found, name).verdict for name in parts} == parts
    assert found.verdict == verdict


def test_one_face_and_nothing_decide_nothing() -> None:
    assert [claim.verdict for claim in claims(Truth(faces=1).evidence())] == [OPEN] * 3
    nothing = Evidence({}, baseline="pocket_dev", swapped="pocket_schnell", margins=MARGINS)
    assert [claim.verdict for claim in claims(nothing)] == [GONE] * 3
    with pytest.raises(StepscopeError, match=r"conf/paper\.yaml names them under `verdict`"):
        claims(replace(nothing, margins=None))


def test_a_share_of_a_lift_that_is_next_to_nothing_is_undecided() -> None:
    small = asked(TRANSFER, Truth(none=0.5, baseline=0.505, swapped=0.55).evidence())
    retention = part(small, "retention of the lift")
    assert retention.verdict == Verdict.UNDECIDED
    assert "not shown to be at least 0.1" in retention.reason


def test_a_backbone_that_shows_no_face_at_all_contradicts_the_transfer() -> None:
    seen = Truth().evidence()
    dev, schnell = seen.runs["main"]
    blind = schnell.assign(final_similarity=schnell["final_similarity"] * np.nan)
    found = asked(TRANSFER, replace(seen, runs={**seen.runs, "main": [dev, blind]}))
    assert found.verdict == Verdict.CONTRADICTED
    assert (
        "no face was found in any image of pocket schnell"
        in part(found, "similarity not lower").reason
    )
