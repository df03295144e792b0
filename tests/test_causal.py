"""Identity moved against closed forms, and the error of a map under its null."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stepscope.analysis.causal.effects import effects, judge_of, study_of
from stepscope.analysis.causal.max_t import MaxT, student
from stepscope.analysis.causal.moved import CELL, Moved
from stepscope.analysis.causal.steered import shares
from stepscope.analysis.causal.swaps import crossing, equal_at, swapped
from stepscope.analysis.figures import FIGURES
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.names import ANCHOR
from tests.edited import measured_study, row
from tests.measured import evidence

FACES = 6
whole = cache(evidence)


def study(kept: list[float], gained: list[float], *, noise: float = 0.0) -> xr.Dataset:
    """A measured study of one part, whose cells have these shares on every face, and noise on top.

    A sample's own cosine is .8 of itself, .1 of its donor's run; the donor's is .05 and .7.
    """
    rng, rows = np.random.default_rng(0), []
    for face in range(FACES):
        lift = 1 + 0.1 * face  # faces differ in how much there is to move
        own, own_of_donor, donor, donor_own = 0.8 * lift, 0.1 * lift, 0.05, 0.7
        rows.append((ANCHOR, "", 0, face, own, donor))
        rows.append((ANCHOR, "other", 0, face, own_of_donor, donor_own))
        for cell, (k, g) in enumerate(zip(kept, gained, strict=True)):
            e = rng.normal(0, noise, 2)
            to_own = own_of_donor + k * (own - own_of_donor) + e[0]
            rows.append(
                ("part", "other", cell, face, to_own, donor + g * (donor_own - donor) + e[1])
            )
    return measured_study(
        [
            row(f"f{face}", part, donor, own, to_donor, at=cell, at_sigma=1 - cell / 8)
            for part, donor, cell, face, own, to_donor in rows
        ]
    )


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_shares_are_those_that_were_put_in(shares):
    gained = [1 - share for share in shares]
    found = Moved("pocket")(study(shares, gained), "part")
    np.testing.assert_allclose(found["kept"], shares, atol=1e-5)
    np.testing.assert_allclose(found["gained"], gained, atol=1e-5)
    assert set(CELL) <= set(found.coords)


def test_the_interval_holds_the_share_and_narrows_with_less_noise():
    found = [Moved("pocket")(study([0.4], [0.5], noise=noise), "part") for noise in (0.05, 0.01)]
    for one in found:
        assert float(one["kept_low"][0]) < 0.4 < float(one["kept_high"][0])
    wide, narrow = (float((one["kept_high"] - one["kept_low"])[0]) for one in found)
    assert narrow < wide / 2


def pictured(found: xr.Dataset, name: str, sign: float = 1.0, direction: str = "higher is better"):
    """The same study, measured by likeness to a picture in place of a face."""
    own = found["edited_similarity"][:, 0, 0, 0].drop_vars(["recogniser", "edited_image", "toward"])
    mine = [n for n in found if str(n).startswith("edited_")]
    values = (sign * own.drop_vars("conditioning", errors="ignore")).assign_attrs(
        direction=direction
    )
    return (
        found.drop_dims(["recogniser", "edited_image"])
        .drop_vars(mine, errors="ignore")
        .assign({name: values})
    )


@pytest.mark.parametrize(
    ("name", "sign", "direction"),
    [
        ("edited_reference_dinov2", 1, "higher is better"),
        ("edited_reference_clip", 1, "higher is better"),
        ("edited_style_gram", -40, "lower is better"),
    ],
)
def test_shares_of_likeness_to_a_picture_are_those_that_were_put_in(name, sign, direction):
    made = pictured(study([0.2, 0.9], [0.5, 0.5], noise=1e-4), name, sign, direction)
    assert judge_of(whole(), made) == name
    found = Moved(name)(made, "part")
    np.testing.assert_allclose(found["kept"], [0.2, 0.9], atol=2e-3)
    assert (found["kept_low"] < found["kept"]).all()
    assert found["gained"].isnull().all()
    with pytest.raises(StepscopeError, match="has no clamped images"):
        Moved(name, image="clamped")(made, "part")


def test_a_study_that_nobody_judged_says_what_could():
    made = pictured(study([0.2], [0.5]), "something_else")
    with pytest.raises(StepscopeError, match="measured by none of edited_reference_dinov2, "):
        judge_of(whole(), made)


def test_where_both_runs_are_alike_the_share_is_blank():
    same = study([0.4], [0.5])
    anchor = (same["part"] == ANCHOR) & (same["donor"] == "other")
    own = same["edited_similarity"].isel(sample=(same["part"] == ANCHOR) & (same["donor"] == ""))
    rng = np.random.default_rng(1)
    values = same["edited_similarity"].values.copy()
    values[anchor.values] = own.values + rng.normal(0, 0.02, own.shape)
    found = Moved("pocket")(
        same.assign(edited_similarity=(same["edited_similarity"].dims, values)), "part"
    )
    assert np.isnan([float(found[w][0]) for w in ("kept", "kept_low", "gained")]).all()
    assert np.isfinite(float(found["change"][0]))


def test_an_image_without_a_face_counts_as_a_stranger():
    one = study([1.0], [0.0])
    values = one["edited_similarity"].values.copy()
    values[(one["part"] == "part").values, 0] = np.nan
    lost = one.assign(edited_similarity=(one["edited_similarity"].dims, values))
    found = Moved("pocket", lost_face=0.1)(lost, "part")
    own = 0.8 * np.mean([1 + 0.1 * face for face in range(FACES)])
    np.testing.assert_allclose(float(found["change"][0]), 0.1 - own, rtol=1e-5)


def test_a_part_or_image_that_is_not_there_is_refused():
    with pytest.raises(StepscopeError, match="no part 'other'; the study has part"):
        Moved("pocket")(study([1.0], [0.0]), "other")
    with pytest.raises(StepscopeError, match="no clamped images"):
        Moved("pocket", image="clamped")(study([1.0], [0.0]), "part")


def test_of_one_cell_max_t_is_the_exact_sign_flip_test():
    values = np.random.default_rng(0).normal(0.7, 1, 8)
    exact = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=2**8
    )
    assert MaxT()(values[:, None])[0] == pytest.approx(exact.pvalue)


def test_t_is_students():
    values = np.random.default_rng(0).normal(0.3, 1, (9, 4))
    found = student(np.ones((1, 9)), values)[0]
    expected: Any = stats.ttest_1samp(values, 0)
    np.testing.assert_allclose(found, expected.statistic)


def test_over_a_map_without_effect_any_cell_is_false_as_seldom_as_said():
    rng, false = np.random.default_rng(0), 0
    for _ in range(300):
        shared = rng.normal(0, 1, (7, 1))
        false += MaxT().survives(0.7 * shared + rng.normal(0, 1, (7, 30))).any()
    low, high = stats.binom.ppf((0.001, 0.999), 300, 0.05)
    assert false <= high
    assert false >= low * 0.5  # sign patterns are few: it may be below its level, but not never


def test_an_effect_in_one_cell_survives_there_alone():
    values = np.random.default_rng(0).normal(0, 1, (12, 40))
    values[:, 7] += 6
    assert np.flatnonzero(MaxT().survives(values)).tolist() == [7]


def test_the_fewest_faces_and_cells_that_say_nothing():
    six = np.ones((6, 2)) + np.random.default_rng(0).normal(0, 0.01, (6, 2))
    assert MaxT()(six).max() == pytest.approx(2 / 64)
    assert np.isnan(MaxT()(np.zeros((6, 2)))).all()
    with pytest.raises(StepscopeError, match="at least 2 faces"):
        MaxT()(np.ones((1, 3)))


def test_a_crossing_is_between_the_points_where_the_sign_turns():
    sigma = np.array([1.0, 0.75, 0.5, 0.0])
    curves = np.array([[-1.0, -1.0, 1.0, 2.0], [-3.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(equal_at(curves, sigma), [0.625, 0.8125, np.nan])


def test_a_clamped_effect_is_counted_between_the_two_x0_of_its_step():
    """Of which an early one is less like anybody than the final image is."""
    rows = []
    for face in range(FACES):
        ends = {0: (0.3, 0.02, 0.05, 0.25), 1: (0.7, 0.1, 0.06, 0.6)}
        rows += [row(f"f{face}", ANCHOR, d, o, t) for d, o, t in (("", 0.9, 0), ("other", 0, 0.9))]
        for at, (own, left, to_donor, reached) in ends.items():
            said = {"at": at, "steps": "only", "clamped": True}
            rows.append(row(f"f{face}", ANCHOR, "", own, to_donor, **said))
            rows.append(row(f"f{face}", ANCHOR, "other", left, reached, **said))
            half = (own + left) / 2, (to_donor + reached) / 2
            rows.append(row(f"f{face}", "part", "other", *half, do="swap", **said))
    found = Moved("pocket", image="clamped")(measured_study(rows), "part")
    np.testing.assert_allclose(found["kept"], [0.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(found["gained"], [0.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(found["change"], [-0.14, -0.3], atol=1e-5)


@pytest.mark.parametrize(
    "study", ["adapter_window", "face_swap", "branch", "transplant", "directions"]
)
def test_the_words_of_a_study_are_its_numbers(study):
    told = whole()
    text = FIGURES[f"figure_{study}"].words(told)
    assert text.startswith("pocket dev: ")
    assert " pocket schnell: " in text
    backbone = text.split(" pocket schnell: ")[1]
    if study == "face_swap":
        found = study_of(told, study, "pocket_schnell")
        where = crossing(swapped(found, judge_of(told, found), 0.0), told)
        assert f"sigma {float(where['position']):.2f} [" in backbone
        photo = effects(told, study, "pocket_schnell", "another photo")
        assert f"{int(photo['survives'].sum())} of 3 cells change with another photo" in backbone
        random = effects(told, study, "pocket_schnell", "at random")["gained"]
        assert f"a random face as far away goes at most {float(random.max()):.2f} [" in backbone
        shuffled, last = (
            effects(told, study, "pocket_schnell", part)["gained"].values[1]
            for part in ("another person in shuffled steps", "another person")
        )
        assert f"in 2 of 4 steps at random places goes {shuffled:.2f} [" in backbone
        assert f"in the last 2 {last:.2f} [" in backbone
        return
    if study == "directions":
        own = next(one for one in shares(told, study, "pocket_schnell") if one.label == "own x 1")
        assert f"own x 1 {own.share:.2f} [{own.low:.2f}, {own.high:.2f}]" in backbone
        return
    if study == "branch":
        first = effects(told, study, "pocket_schnell", "other noise").isel(cell=0)
        kept = [float(first[f"kept{end}"]) for end in ("", "_low", "_high")]
        assert "other noise from step 1 on leaves {:.2f} [{:.2f}, {:.2f}]".format(*kept) in backbone
        assert f"by {float(first['outside']):.2f} (of 4 steps)." in backbone
        return
    part = {"adapter_window": "all but one block", "transplant": "attention"}[study]
    found = effects(told, study, "pocket_schnell", part)
    assert f"{int(found['survives'].sum())} of {found.sizes['cell']} " in backbone


def test_swaps_are_laid_by_the_steps_with_the_first_face():
    """The whole runs at both ends; of a random face the run from the start was not made."""
    rows = [
        row("f", part, donor, *cosines, do=do, steps=steps, at=at)
        for part, donor, do, steps, at, cosines in (
            (ANCHOR, "", "", "", 0, (0.9, 0.0)),
            (ANCHOR, "other", "", "", 0, (0.0, 0.8)),
            ("swap", "other", "face", "from", 1, (0.1, 0.7)),
            ("swap", "other", "face", "from", 2, (0.6, 0.2)),
            ("random", "random", "face", "from", 1, (0.2, 0.03)),
            ("shuffled", "other", "face", "shuffled", 1, (0.5, 0.4)),
            ("shuffled", "other", "face", "shuffled", 2, (0.3, 0.5)),
        )
    ]
    found = swapped(measured_study(rows, [1.0, 0.8, 0.5]), "pocket", 0.0)
    assert found.photo is None
    assert found.random is not None
    assert found.shuffled is not None
    for values, at, expected in (
        (found.own, [0, 1, 2, 3], [0.0, 0.1, 0.6, 0.9]),
        (found.other, [0, 1, 2, 3], [0.8, 0.7, 0.2, 0.0]),
        (found.random[0], [1, 3], [0.2, 0.9]),
        (found.random[1], [1, 3], [0.03, 0.0]),
        (found.shuffled[0], [0, 1, 2, 3], [0.0, 0.3, 0.5, 0.9]),
        (found.shuffled[1], [0, 1, 2, 3], [0.8, 0.5, 0.4, 0.0]),
    ):
        assert values["at"].values.tolist() == at
        assert values["at_sigma"].values.tolist() == [[1.0, 0.8, 0.5, 0.0][k] for k in at]
        np.testing.assert_allclose(values.values, [expected], atol=1e-6)


def test_without_a_study_there_are_no_words():
    alone = replace(whole(), causal={})
    assert FIGURES["figure_transplant"].words(alone) == ""
