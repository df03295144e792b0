"""Edited samples are what a pipeline makes that is edited by hand, and a kill costs nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks.edits import Edit, Scale, edit
from stepscope.hooks.errors import RunError, StepscopeError, UnsupportedPipelineError
from stepscope.hooks.store import Run
from stepscope.probes.intervene import intervene, main, sites_of
from stepscope.probes.interventions import making
from stepscope.probes.interventions.companions import RANDOM, with_random_faces
from stepscope.probes.interventions.makeable import check_makeable
from stepscope.probes.interventions.names import ANCHOR, CLAMPED
from stepscope.probes.interventions.part import Part
from stepscope.probes.interventions.planned import planned
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.interventions.windows import windows
from stepscope.probes.models import switched_off
from stepscope.probes.replay import continue_rows
from stepscope.probes.reread import Settings, load
from stepscope.probes.rereading import open_rereading
from stepscope.probes.run import run
from tests.shell import infused, listed, run_command, study_of

STEPS, ADAPTER = 3, ("*.adapter",)
STRONG = 200.0  # of random weights: what they add is then far above rounding
KINDS = {
    "schnell": ("schnell", {"guidance": None, "adapter.scale": STRONG}),
    "true_cfg": ("dev", {"true_cfg": 2.0, "negative_prompt": "sketch", "adapter.scale": STRONG}),
}
EVERYTHING = (
    Part("off", "zero", ADAPTER, steps="from"),
    Part("swap", "swap", ("*.residual.*", "*.adapter"), "other", "only", clamped=True),
    Part("blocks", "swap", ("*.attention.image",), "other", "from", "only", together=3, faces=1),
    Part("face", "face", (), "other", "from"),
    Part("photo", "face", (), "same", "from"),
    Part("nobody", "face", (), "random", "from"),
    Part("to and fro", "face", (), "other", "shuffled"),
    Part("prompt", "prompt", to="a woman portrait", steps="from"),
    Part("half", "scale", to=STRONG / 2, steps="from"),
    Part("noise", "noise", to=7, steps="from"),
    Part("random", "swap", ADAPTER, "random", "all", faces=1),
    Part("shuffled", "zero", ADAPTER, steps="shuffled"),
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "schnell")) for kind in KINDS],
)
def made(request, tmp_path_factory) -> Path:
    """A run of two people, one prompt and two seeds, with tiny random models."""
    folder = tmp_path_factory.mktemp(request.param)
    for i, name in enumerate(("ann_1", "bob_1", "ann_2", "bob_2")):
        np.save(folder / f"{name}.npy", np.random.default_rng(i).normal(size=512))
    backbone, more = KINDS[request.param]
    faces = listed(folder / "ann_1.npy", folder / "bob_1.npy")
    words = {"faces": faces, "steps": STEPS, "batch_size": 4, "seeds": "[0,1]", **more}
    run(study_of(infused(backbone, **words, out=folder / "run.zarr")), say=lambda text: None)
    return folder / "run.zarr"


def photos(path: Path) -> tuple[str, ...]:
    return tuple(str(path.parent / f"{name}.npy") for name in ("ann_2", "bob_2"))


def study(path: Path, *parts: Part, **more) -> CausalStudy:
    return CausalStudy("test", parts, **{"photos": photos(path), "rows": 8, **more})


@pytest.fixture(scope="module")
def everything(made) -> xr.Dataset:
    """Every kind of part, made on the run."""
    out = intervene(made, study(made, *EVERYTHING), say=lambda text: None)
    return xr.open_zarr(out, chunks=None).load()


def close(a: np.ndarray, b: np.ndarray, before: np.ndarray) -> bool:
    """Equal but for what a batch of another size rounds, which is far less than what the edit changed."""
    return bool(np.abs(a - b).max() <= 0.05 * np.abs(b - before).max())


def resume_from(loaded, cells, stored: np.ndarray, step: int) -> np.ndarray:
    """Final latents of one plain call; tests/test_reread.py has it against ordinary runs."""
    return continue_rows(loaded, cells, stored, step).final


def test_without_edits_a_sample_ends_as_it_was_recorded(made):
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    rows = [cell.index for cell in cells]
    for step in range(STEPS):
        found = continue_rows(loaded, cells, opened.read("latents", rows)[:, step], step)
        assert np.array_equal(found.final, opened.read("final_latents", rows))
        x0 = opened.read("x0", rows)[:, step]
        assert np.allclose(found.x0, x0, rtol=0, atol=1e-5 * np.abs(x0).max())


def test_the_control_image_is_encoded_once_for_calls_of_one_size(made, monkeypatch):
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    start, sizes = opened.read("latents", [cell.index for cell in cells])[:, 1], []
    forward = loaded.pipe.vae.encoder.forward
    monkeypatch.setattr(
        loaded.pipe.vae.encoder, "forward", lambda x: [sizes.append(len(x)), forward(x)][1]
    )
    found = [continue_rows(loaded, cells[:n], start[:n], 1).final for n in (4, 2, 4, 2)]
    assert sizes == [4, 2]
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[3])
    assert "encode" not in vars(loaded.pipe.vae)


def test_zeros_from_a_step_on_are_the_adapter_off_from_there(made, everything):
    opened = open_rereading(made)
    off = switched_off(load(opened, Settings()))
    rows = [cell.index for cell in opened.cells]
    for step in (1, 2):
        stored = opened.read("latents", rows)[:, step]
        expected = resume_from(off, list(opened.cells), stored, step)
        chosen = everything.isel(sample=(everything["part"] == "off") & (everything["at"] == step))
        assert chosen["base"].values.tolist() == rows
        assert close(chosen["final_latents"].values, expected, opened.read("final_latents", rows))


def test_a_step_swapped_whole_moves_as_the_other_person_does(made, everything):
    """The velocity is then the other's: x0 = x_t - sigma v, with v of the other's run."""
    opened = open_rereading(made)
    cells = list(opened.cells)
    for step in range(STEPS):
        chosen = everything.isel(sample=(everything["part"] == "swap") & (everything["at"] == step))
        for sample in range(chosen.sizes["sample"]):
            one = chosen.isel(sample=sample)
            base = cells[int(one["base"])]
            face = opened.others[base.face]
            donor = next(c for c in cells if (c.face, c.seed) == (face, base.seed))
            x, x0 = (opened.read(n, [base.index, donor.index])[:, step] for n in ("latents", "x0"))
            assert str(one["donor_face"].values) == face
            assert close(one["clamped_x0"].values, x[0] - (x[1] - x0[1]), x0[0])


def test_a_face_from_a_step_on_is_a_run_continued_with_it(made, everything):
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    rows = [cell.index for cell in cells]
    for step in (1, 2):
        others = [replace(cell, face=opened.others[cell.face]) for cell in cells]
        expected = resume_from(loaded, others, opened.read("latents", rows)[:, step], step)
        chosen = everything.isel(sample=(everything["part"] == "face") & (everything["at"] == step))
        assert close(chosen["final_latents"].values, expected, opened.read("final_latents", rows))


def test_a_random_face_is_as_far_as_the_other_person_and_leads_elsewhere(made, everything):
    opened = open_rereading(made)
    loaded = with_random_faces(load(opened, Settings()), opened.others)
    for name, other in opened.others.items():
        own, found, to = (loaded.faces[n].embedding for n in (name, RANDOM + name, other))
        assert found @ own == pytest.approx(to @ own, abs=1e-6)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        along = to @ own
        assert (
            abs((found - along * own) @ (to - along * own)) < 0.2
        )  # 512 channels: 4 of 1 / sqrt(512)
    cells = [replace(cell, face=RANDOM + cell.face) for cell in opened.cells]
    rows = [cell.index for cell in cells]
    expected = resume_from(loaded, cells, opened.read("latents", rows)[:, 1], 1)
    chosen = everything.isel(sample=(everything["part"] == "nobody") & (everything["at"] == 1))
    assert close(chosen["final_latents"].values, expected, opened.read("final_latents", rows))
    assert chosen["donor_face"].values.tolist() == [opened.others[c.face] for c in opened.cells]


def test_a_face_in_shuffled_steps_is_given_there_alone(made, everything):
    """Step by step, each with the face of that step."""
    opened = open_rereading(made)
    loaded = load(opened, Settings())
    part = everything.isel(sample=everything["part"].values == "to and fro")
    assert sorted({*part["at"].values.tolist()}) == [1, 2]
    for cell in opened.cells:
        mine = part.isel(sample=part["base"].values == cell.index)
        before = opened.read("final_latents", [cell.index])
        for window in windows("shuffled", STEPS, 1, cell.index):
            x = opened.read("latents", [cell.index])[:, 0]
            for step in range(STEPS):
                face = opened.others[cell.face] if step in window.places else cell.face
                x = continue_rows(loaded, [replace(cell, face=face)], x, step, steps=1).final
            got = mine["final_latents"].values[mine["at"].values == window.at]
            assert close(got, x, before)


def test_a_face_to_and_fro_needs_the_adapter_in_every_step(made):
    opened, part = open_rereading(made), Part("a", "face", (), "other", "shuffled")
    adapter = opened.study.adapter
    assert adapter is not None
    cut = replace(opened.study, adapter=replace(adapter, window=(0, 2), window_unit="step"))
    with pytest.raises(StepscopeError, match=r"adapter.window=\[0, 2\]"):
        planned(replace(opened, study=cut), study(made, part), sites_of(opened.study))


def test_another_prompt_or_scale_is_a_run_continued_with_it(made, everything):
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    rows, before = [cell.index for cell in cells], opened.read("final_latents", range(4))
    adapter = loaded.study.adapter
    assert adapter is not None
    half = replace(loaded, study=replace(loaded.study, adapter=replace(adapter, scale=STRONG / 2)))
    others = [replace(cell, prompt="a woman portrait") for cell in cells]
    for step in (1, 2):
        stored = opened.read("latents", rows)[:, step]
        for part, expected in {
            "prompt": resume_from(loaded, others, stored, step),
            "half": resume_from(half, cells, stored, step),
        }.items():
            chosen = everything.isel(
                sample=(everything["part"] == part) & (everything["at"] == step)
            )
            assert close(chosen["final_latents"].values, expected, before)
            assert (chosen["to"] == ("a woman portrait" if part == "prompt" else "100.0")).all()


def test_other_noise_keeps_x0_and_replaces_the_rest(made, everything):
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    noise = torch.randn(opened.latent_shape, generator=torch.Generator().manual_seed(7)).numpy()
    sigma, x0 = opened.sigma[1], opened.read("x0", range(4))[:, 1]
    expected = resume_from(loaded, cells, (1 - sigma) * x0 + sigma * noise, 1)
    chosen = everything.isel(sample=(everything["part"] == "noise") & (everything["at"] == 1))
    assert close(chosen["final_latents"].values, expected, opened.read("final_latents", range(4)))


def test_the_runs_own_sigmas_change_nothing(made):
    """As another backbone is given them, whose schedule may be another."""
    opened = open_rereading(made)
    loaded, stored = load(opened, Settings()), opened.read("latents", range(4))[:, 1]
    given = continue_rows(loaded, opened.cells, stored, 1, sigmas=opened.sigma.tolist())
    assert np.array_equal(given.final, opened.read("final_latents", range(4)))
    other = continue_rows(loaded, opened.cells, stored, 1, sigmas=[1.0, 0.9, 0.1])
    assert not np.allclose(other.final, given.final, atol=1e-2)


def test_anchors_are_the_runs_that_effects_are_counted_between(made, everything):
    """Their final latents, and for clamped effects their recorded x0."""
    opened = open_rereading(made)
    anchors = everything.isel(sample=(everything["part"] == ANCHOR) & (everything["steps"] == ""))
    steps = everything.isel(sample=(everything["part"] == ANCHOR) & (everything["steps"] == "only"))
    for step in range(STEPS):
        x0 = opened.read("x0", range(4))[:, step]
        for donor, expected in {"": x0, "other": x0[[2, 3, 0, 1]]}.items():
            chosen = steps.isel(sample=(steps["at"] == step) & (steps["donor"] == donor))
            assert np.array_equal(chosen["clamped_x0"].values, expected)
    recorded = opened.read("final_latents", range(len(opened.cells)))
    own = anchors.isel(sample=anchors["donor"] == "")
    assert np.array_equal(own["final_latents"].values, recorded)
    other = anchors.isel(sample=anchors["donor"] == "other")
    assert np.array_equal(other["final_latents"].values, recorded[[2, 3, 0, 1]])
    off = anchors.isel(sample=anchors["donor"] == "off")
    noise = opened.read("latents", range(4))[:, 0]
    without = resume_from(switched_off(load(opened, Settings())), list(opened.cells), noise, 0)
    assert close(off["final_latents"].values, without, recorded)
    assert {"", "other", "off", "same"} == set(anchors["donor"].values.tolist())


def test_each_sample_has_its_own_shuffled_steps(made, everything):
    """Steps that are off in a sample, read off where its part begins to differ, are those of its seed."""
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    chosen = [{w.at: w.places for w in windows("shuffled", STEPS, 1, cell.index)} for cell in cells]
    assert len({str(one) for one in chosen}) > 1
    part = everything.isel(sample=everything["part"].values == "shuffled")
    for cell, places in zip(cells, chosen, strict=True):
        mine = part.isel(sample=part["base"].values == cell.index)
        start = opened.read("latents", [cell.index])[:, 0]
        for at, steps in places.items():
            edits = [Edit(ADAPTER, Scale(0.0), steps=(k, k + 1)) for k in steps]
            made_by_hand = continue_rows(loaded, [cell], start, 0, edits)
            got = mine["final_latents"].values[mine["at"].values == at]
            before = opened.read("final_latents", [cell.index])
            assert close(got, made_by_hand.final, before)


def test_what_was_made_is_kept_and_the_rest_is_made(made, monkeypatch):
    part = Part("off", "zero", ADAPTER, steps="only")
    whole = intervene(made, replace(study(made, part), name="whole"), say=lambda text: None)
    calls, real = [], making.make_batch

    def stopped(*args, **more):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **more)

    halves = replace(study(made, part), name="halves")
    monkeypatch.setattr(making, "make_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        intervene(made, halves, say=lambda text: None)
    monkeypatch.setattr(making, "make_batch", real)
    said: list[str] = []
    out = intervene(made, halves, say=said.append)
    a, b = (xr.open_zarr(path, chunks=None)["final_latents"].values for path in (whole, out))
    assert np.array_equal(a, b)
    assert "12 interventions, 12 to make" not in said[0]
    assert "12 interventions, " in said[0]
    again: list[str] = []
    intervene(made, halves, say=again.append)
    assert "nothing to do" in again[-1]


PHOTO = Part("photo", "face", (), "same", "from")
REFUSED = {
    "another photo of 'ann_1'": {"photos": ()},
    "no 'eve'": {"faces": ("eve",)},
    "adapter": {"parts": (Part("a", "zero", ("*.adaptor",)),)},
    "none is named": {"parts": ()},
    r"within=\[5, 7\] holds no step": {"within": (5, 7)},
    r"no block matches 'triple.\*'; did you mean": {"among": ("triple.*",)},
    "no backbone='pocket_devs'": {
        "parts": (Part("b", "backbone", to="pocket_devs", steps="from"),)
    },
    "adapter=infusenet is made for flux": {
        "parts": (Part("b", "backbone", to="sdxl", steps="from"),)
    },
    r"has latents of \(16, 16, 16\)": {
        "parts": (Part("b", "backbone", to="pocket_schnell", steps="from"),)
    },
}


@pytest.mark.parametrize(("said", "change"), REFUSED.items())
@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be_made_is_refused_before_models_load(made, change, said, dry, monkeypatch):
    monkeypatch.setattr("stepscope.probes.models.load", lambda *given: pytest.fail("models load"))
    base = {"parts": (PHOTO,), "name": "wrong", "photos": photos(made), "dry": dry}
    with pytest.raises(StepscopeError, match=said):
        intervene(made, CausalStudy(**{**base, **change}), say=lambda text: None)


def test_a_run_whose_steps_depend_on_earlier_ones_is_refused_before_models_load(made, monkeypatch):
    opened = open_rereading(made)
    plan = planned(opened, study(made, PHOTO), sites_of(opened.study))
    check_makeable(plan)
    told = opened.store.attributes
    told["scheduler"]["class"] = "DPMSolverMultistepScheduler"
    monkeypatch.setattr(Run, "attributes", property(lambda run: told))
    with pytest.raises(
        UnsupportedPipelineError, match="DPMSolverMultistepScheduler cannot continue"
    ):
        check_makeable(plan)


def test_a_part_of_a_map_is_made_fine(made):
    parts = (
        Part("one", "zero", ADAPTER, steps="only", blocks="only"),
        Part("all", "zero", ADAPTER),
    )
    opened, sites = open_rereading(made), sites_of(open_rereading(made).study)
    whole = planned(opened, study(made, *parts), sites).jobs
    some = planned(opened, study(made, *parts, within=(1, 3), among=("single.*",)), sites).jobs

    def places(jobs) -> list[tuple[int, int, str]]:
        return [(job.base.index, job.intervention.at, job.intervention.block) for job in jobs]

    wanted = [one for one in places(whole) if one[1] in (1, 2) and not one[2].startswith("double")]
    assert places(some) == wanted
    assert len(wanted) < len(whole)
    with pytest.raises(StepscopeError, match="named after"):
        planned(opened, study(made, parts[0], within=(1, 2), among=("double.00",), every=3), sites)
    with pytest.raises(StepscopeError, match="holds no step"):
        study(made, *parts, within=(3, 3))


def test_one_change_under_several_names_is_computed_once(made, monkeypatch):
    """The first step alone is the first one of several too; of two groups, one is all but the other."""
    parts = (
        Part("one", "swap", ADAPTER, "other", "only", clamped=True),
        Part("first", "swap", ADAPTER, "other", "first"),
        Part("group", "swap", ADAPTER, "other", "all", "only", together=4),
        Part("all but", "swap", ADAPTER, "other", "all", "all_but", together=4),
        Part("photo", "swap", ADAPTER, "same", "only"),
    )
    rows, real = [], making.continue_rows

    def counted(loaded, some, *more, **named):
        rows.append(len(some))
        return real(loaded, some, *more, **named)

    monkeypatch.setattr(making, "continue_rows", counted)
    said: list[str] = []
    chosen = study(made, *parts, faces=("ann_1",), seeds=(0,), rows=100)
    out = intervene(made, replace(chosen, name="twins"), say=said.append)
    told = xr.open_zarr(out, chunks=None).load()

    def of(part: str, **where) -> xr.Dataset:
        keep = told["part"] == part
        for name, value in where.items():
            keep &= told[name] == value
        return told.isel(sample=keep)

    blocks = list(dict.fromkeys(of("group")["at_block"].values))
    assert len(blocks) == 2
    # each of 3 steps, of both donors; the first two together; two groups; and 2 givers at each start
    assert sum(rows) == 2 * 3 + 1 + 2 + 3 * 2
    assert "3 of them are others under another name" in said[0]
    same = [
        (of("one", at=0), of("first", at=1)),
        (of("group", at_block=blocks[0]), of("all but", at_block=blocks[1])),
        (of("group", at_block=blocks[1]), of("all but", at_block=blocks[0])),
    ]
    for one, other in same:
        assert np.array_equal(one["final_latents"], other["final_latents"])
        assert one.sizes["sample"] == other.sizes["sample"] == 1
    assert np.isfinite(of("one")[CLAMPED]).all()
    assert np.isnan(of("first")[CLAMPED]).all()
    another = of("photo", at=0)["final_latents"]
    assert not np.array_equal(another, of("one", at=0)["final_latents"])


def test_another_study_of_the_name_is_not_mixed_with_the_first(made, everything):
    with pytest.raises(RunError, match="another study"):
        intervene(made, study(made, EVERYTHING[0]), say=lambda text: None)


def test_the_command_says_the_plan_and_stops(made, capsys):
    words = [str(made), "edit=adapter_window", "rows=8", "together=100", "every=2", "--dry"]
    assert run_command(words, main) == 0
    said = capsys.readouterr().out
    assert "adapter_window: 32 interventions, 32 to make" in said
    assert "ready" in said
    assert not (made / "interventions" / "adapter_window").exists()


def test_the_command_names_the_nearest_study(made, capsys):
    assert run_command([str(made), "edit=transplants"], main) == 2
    assert "transplant" in capsys.readouterr().err


def test_edits_by_hand_give_the_same_rows(made, everything):
    """One window of one block, by the public verb around the pipeline's own call."""
    opened = open_rereading(made)
    loaded, cells = load(opened, Settings()), list(opened.cells)
    rows = [cell.index for cell in cells]
    with edit(loaded.pipe, Edit("*.adapter", Scale(0.0), steps=(0, STEPS - 1))):
        expected = resume_from(loaded, cells, opened.read("latents", rows)[:, 1], 1)
    chosen = everything.isel(sample=(everything["part"] == "off") & (everything["at"] == 1))
    assert close(chosen["final_latents"].values, expected, opened.read("final_latents", rows))
