"""Organisms carry identity where it was planted and nowhere else, and methods are ranked by that truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepscope.analysis.planted import result
from stepscope.analysis.planted.auroc import auroc
from stepscope.analysis.planted.benchmark import load, main
from stepscope.analysis.planted.methods import EDITS, METHODS, NORMS
from stepscope.analysis.planted.seen import Check, see
from stepscope.analysis.planted.settings import from_config
from stepscope.analysis.planted.table import (
    AGAINST,
    PRIOR,
    Entry,
    failing,
    markdown,
    sentence,
    table,
)
from stepscope.hooks.edits import Edit, Scale
from stepscope.hooks.errors import StepscopeError
from stepscope.probes import models, plan
from stepscope.probes.composing import composed
from stepscope.probes.faces import face_files
from stepscope.probes.planting.bench import Bench
from stepscope.probes.planting.gradient import gradient_times_activation
from stepscope.probes.planting.grown import Grown, grow
from stepscope.probes.planting.methods import Row, edited
from stepscope.probes.planting.organism import KINDS, Organism, Place, organisms
from stepscope.probes.replay import continue_rows
from tests.organisms import known_organisms
from tests.shell import infused, listed, run_command, study_of

STEPS, STRONG = 3, 200.0  # of random weights: what they add is then far above rounding
HERE, QUIET = Place(1, 1), Place(0, 2)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    """Tiny random models and four people."""
    folder = tmp_path_factory.mktemp("people")
    for i, name in enumerate("abcd"):
        np.save(folder / f"{name}.npy", np.random.default_rng(i).normal(size=512))
    faces = listed(*(folder / f"{name}.npy" for name in "abcd"))
    words = {"faces": faces, "steps": STEPS, "guidance": None, "adapter.scale": STRONG}
    study = study_of(infused("schnell", **words))
    shape = plan.latent_shape(plan.outline(study))
    return Bench(models.load(study, face_files(study.faces), shape, 4))


@pytest.fixture(scope="module")
def single(bench) -> Grown:
    """Identity at one place, zeros at every other."""
    return grow(Organism("single", "few", ((HERE,),), 1.5), bench, (0, 1))


def test_places_hold_what_was_planted(bench):
    organism = Organism("loud", "decoy_other", ((Place(0, 0),),), 1.5, (HERE,), "other", 2.0)
    kept = grow(organism, bench, (0,)).base.values
    for group, sites in enumerate(bench.groups):
        for step in range(STEPS):
            natural = [bench.natural.values[site, step] for site in sites]
            found = [kept[site, step] for site in sites]
            if (group, step) == (0, 0):
                assert all((a == 1.5 * b).all() for a, b in zip(found, natural, strict=True))
            elif (group, step) == HERE:
                for a, b in zip(found, natural, strict=True):
                    stranger = b[[2, 3, 0, 1]]
                    ratio = a.flatten(1).norm(dim=1) / stranger.flatten(1).norm(dim=1)
                    assert np.allclose(
                        a, stranger * ratio[:, None, None], atol=1e-4 * float(a.abs().max())
                    )
                    planted = 1.5 * bench.size(Place(0, 0))
                    assert np.allclose(a.flatten(1).norm(dim=1), 2.0 * planted, rtol=1e-5)
            else:
                assert not any(a.any() for a in found)


def test_a_random_decoy_is_one_direction_for_each_person(bench):
    organism = Organism("noisy", "decoy_random", ((QUIET,),), 1.0, (HERE,), "random")
    (site, *_), held = bench.groups[HERE.group], bench.decoys(organism)
    units = held[site, HERE.step] / held[site, HERE.step].norm(dim=-1, keepdim=True)
    assert np.allclose(units, units[:, :1].expand_as(units), atol=1e-5)
    assert np.abs(np.triu((units[:, 0] @ units[:, 0].T).numpy(), 1)).max() < 0.9
    again = bench.decoys(replace(organism, seed=1))
    assert not np.allclose(again[site, HERE.step], held[site, HERE.step])


def test_edits_of_a_single_cause_make_the_runs_that_they_stand_for(bench, single):
    """All that a run knows of its person is in one place, so that editing it gives another known run."""
    base, without = single.base.final, bench.without.final[0]
    rows = {m: Row(m, 0, HERE) for m in ("zero", "swap", "denoise", "alone")}
    made = edited(single, [*rows.values()], 8)
    expected = {"zero": without, "swap": base[1], "denoise": base[0], "alone": base[0]}
    far = np.abs(base[0] - base[1]).max()
    for method, row in rows.items():
        assert np.abs(made[row] - expected[method]).max() < 0.02 * far, method
    assert np.abs(single.off - without).max() < 0.02 * far


def test_every_method_but_those_of_the_stream_finds_a_single_cause(bench, single):
    """The judge is how near the latents are to the person's run."""
    known = dict(zip(bench.people, single.base.final, strict=True))

    def judge(latents, people):
        return np.array(
            [-np.abs(x - known[p]).mean() for x, p in zip(latents, people, strict=True)]
        )

    seen, truth = see(single, judge, 8), single.organism.truth(len(bench.groups), STEPS)
    found = {name: auroc(method(seen), truth) for name, method in METHODS.items()}
    assert {name for name, area in found.items() if area == 1.0} >= {*METHODS} - {*NORMS} | {
        "contribution"
    }


def test_the_gradient_is_that_of_x0_by_finite_differences(bench, single):
    organism = Organism("first", "early", ((Place(0, 0), Place(1, 0)),), 1.0)
    grown = grow(organism, bench, (0,))
    found = gradient_times_activation(grown)[0]
    away = grown.base.final[0] - grown.base.final[1]
    for group in (0, 1):
        ends = []
        for factor in (0.98, 1.02):
            more = Edit(bench.groups[group], Scale(factor), steps=(0, 1))
            edits = [*grown.edits([0]), more]
            made = continue_rows(bench.loaded, bench.cells([0]), bench.noise(1), 0, edits)
            ends.append((made.x0[0] * away).sum() / np.linalg.norm(away))
        slope = (ends[1] - ends[0]) / 0.04
        assert found[group, 0] == pytest.approx(slope, rel=0.05, abs=1e-3 * np.abs(found).max())
    assert not found[:, 1:].any()


@given(st.integers(0, 2**32), st.integers(1, 24), st.integers(4, 12), st.integers(4, 28))
def test_organisms_are_those_of_their_seed(seed, count, groups, steps):
    made = organisms(seed, count, groups, steps)
    assert made == organisms(seed, count, groups, steps)
    assert len({one.name for one in made}) == count
    for one in made:
        assert all(0 <= g < groups and 0 <= k < steps for g, k in one.filled)
        assert one.truth(groups, steps).sum() == len(one.identity) > 0
        assert bool(one.decoys) == one.kind.startswith("decoy")
        assert len(one.parts) == 1 + (one.kind == "redundant")
    assert made != organisms(seed + 1, count, groups, steps)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"parts": ()}, "no identity"),
        ({"decoys": (HERE,), "decoy": "other"}, "identity and a decoy"),
        ({"decoys": (QUIET,), "decoy": "another"}, "another"),
        ({"decoy": "other"}, "other"),
    ],
)
def test_an_organism_that_means_nothing_is_refused(values, said):
    with pytest.raises(StepscopeError, match=said):
        Organism(**{"name": "a", "kind": "few", "parts": ((HERE,),), "scale": 1.0, **values})


def test_a_map_that_is_too_small_is_refused():
    with pytest.raises(StepscopeError, match="4 of each"):
        organisms(0, 1, 3, 4)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(cells):
    scores, truth = np.array([s for s, _ in cells], float), np.array([t for _, t in cells])
    if truth.all() or not truth.any():
        with pytest.raises(StepscopeError, match="both kinds"):
            auroc(scores, truth)
        return
    more = scores[truth][:, None] - scores[~truth]
    assert auroc(scores, truth) == pytest.approx(((more > 0) + 0.5 * (more == 0)).mean())
    assert auroc(-scores, truth) == pytest.approx(1 - auroc(scores, truth))


def test_the_table_ranks_methods_by_what_they_find():
    found = table(known_organisms(30))
    rows = [Entry(*row) for row in found.itertuples(index=False)]
    by = {(one.method, one.kind): one.auroc for one in rows}
    others = {*EDITS} - {"swap ablation"}
    assert {area for (method, _), area in by.items() if method in others} == {1.0}
    assert {area for (method, _), area in by.items() if method == "swap ablation"} == {0.5}
    assert by["contribution", "early"] == 1
    assert by["contribution", AGAINST] == 0.5
    assert all(np.isnan(one.low) == (one.organisms < 5) for one in rows)
    assert abs(by[PRIOR, AGAINST] - 0.5) < 0.25
    assert failing(found)[-1].startswith("swap ablation: few, early, late")
    assert "| denoising transplant | 1.00 [1.00, 1.00] |" in markdown(found)


def test_the_sentence_follows_the_numbers():
    plain = "cannot tell as edits can whether that is identity"
    assert plain in sentence(known_organisms(30))
    assert "the mean of the 5 edits 0.90 [0.90, 0.90]" in sentence(known_organisms(30))
    turned = [
        replace(one, scores={**one.scores, **dict.fromkeys(EDITS, one.scores["contribution"])})
        for one in known_organisms(30)
    ]
    assert plain not in sentence(turned)
    assert sentence([one for one in known_organisms(6) if not one.organism.decoys]) == ""


def test_organisms_that_do_not_show_are_left_out():
    some = known_organisms(6)
    left = [replace(one, passed=one.organism.kind != "late") for one in some]
    assert "late" not in set(table(left)["kind"])
    assert [*table(left)["organisms"]].count(5) == len(METHODS) + 1


@pytest.mark.parametrize(
    ("on", "each", "passes"),
    [
        ([0.6, 0.5], [], True),
        ([0.9, 0.0], [], False),
        ([0.2, 0.2], [], False),
        ([0.6, 0.6], [[0.5, 0.5], [0.6, 0.6]], True),
        ([0.6, 0.6], [[0.2, 0.2], [0.6, 0.6]], False),
    ],
)
def test_the_planted_identity_must_show(on, each, passes):
    alone = np.array(each).reshape(-1, 2)
    assert Check(np.array(on), np.zeros(2), alone).passes(0.25, 0.6) is passes


def test_a_result_is_read_again_where_the_same_was_asked(tmp_path):
    (one,) = known_organisms(1)
    path = tmp_path / "few_01.json"
    assert result.read(path, one.organism, {"a": 1}) is None
    result.write(path, one, {"a": 1})
    again = result.read(path, one.organism, {"a": 1})
    assert again is not None
    assert all(np.array_equal(again.scores[name], one.scores[name]) for name in METHODS)
    assert result.read(path, one.organism, {"a": 2}) is None


def test_a_folder_of_results_is_read_without_the_settings(tmp_path):
    some = known_organisms(6)
    for one in some:
        asked = {"organism": one.organism.told()}
        result.write(tmp_path / f"{one.organism.name}.json", one, asked)
    found = {one.organism.name: one for one in result.read_all(tmp_path)}
    assert {name: one.organism for name, one in found.items()} == {
        one.organism.name: one.organism for one in some
    }
    assert sentence([found[one.organism.name] for one in some]) == sentence(some)
    assert result.read_all(tmp_path / "nowhere") == []


def test_the_command_lists_its_organisms(capsys):
    assert run_command(["--dry", f"count={len(KINDS)}"], main) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("_01:")[0] for line in lines] == [*KINDS]


def test_the_conditioning_recogniser_is_no_judge(tmp_path):
    """A pack with the adapter's own encoder in it."""
    settings, study = from_config(composed([], "planted"))
    assert study.adapter is not None
    pocket = Path(settings.judge)
    (encoder,) = (one.find() for one in study.adapter.models() if one.role == "encoder")
    (tmp_path / "recognition.onnx").symlink_to(encoder.resolve())
    (tmp_path / "det.onnx").symlink_to((pocket / "det.onnx").resolve())
    with pytest.raises(StepscopeError, match="circular"):
        load(replace(settings, judge=str(tmp_path)), study)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["count=0"], "count=0"),
        (["adapter=none"], "adapter=none"),
        (["faces=[pocket/portraits/00_0.png]"], "4 people"),
        (["targets=9"], "targets=9"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(words, said):
    with pytest.raises(StepscopeError, match=said):
        from_config(composed(words, "planted"))


def test_too_few_organisms_are_no_conclusion():
    assert "too few organisms for a conclusion" in sentence(known_organisms(6))
    assert "1 organism)" in sentence(
        [one for one in known_organisms(6) if one.organism.kind != "decoy_random"]
    )
