"""What an edit changes is what it says: site, step, branch, rows, tokens and operation."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.hooks import (
    Add,
    At,
    Capture,
    Edit,
    Mean,
    Scale,
    StepscopeWarning,
    Swap,
    edit,
    record,
)
from stepscope.hooks.attributes import unpacked
from stepscope.hooks.families import blocks_of
from tests.cases import CASES, PROMPT, Case, wiring
from tests.models import pipeline
from tests.oracle_watch import Watch
from tests.small import SMALL

SITE = "double.01.attention.image"
PAIR: dict[str, Any] = {"seeds": (0, 1)}


def watched(case: Case, *edits: Edit, **call: Any) -> Watch:
    """Every pass of a call of two samples under edits, kept by plain hooks."""
    with edit(case.pipe, edits), Watch(case.pipe).on() as watch:
        case(**(PAIR | call))
    return watch


def at(watch: Watch, step: int, site: str = SITE, nth: int = 0) -> torch.Tensor:
    """What a site held, (row of the pass, token, channel)."""
    block, quantity, stream = site.rsplit(".", 2)
    return watch.steps[step].passes[nth].outputs[quantity, block][stream]


@pytest.fixture(scope="module")
def plain() -> Watch:
    return watched(CASES["flux"])


# Where and when.


def test_a_window_in_steps_holds_its_start_and_not_its_end(plain):
    seen = watched(CASES["flux"], Edit(SITE, Scale(0.0), steps=(1, 2)))
    assert [bool(at(seen, step).any()) for step in range(3)] == [True, False, True]
    torch.testing.assert_close(at(seen, 0), at(plain, 0), rtol=0, atol=0)


def test_a_window_in_sigma_holds_its_start_and_not_its_end(recorded):
    sigma = recorded(CASES["flux"]).run.sigma.values
    window = float(sigma[1]), float(sigma[2])
    seen = watched(CASES["flux"], Edit(SITE, Scale(0.0), sigmas=window))
    assert [bool(at(seen, step).any()) for step in range(3)] == [True, False, True]


def test_the_clock_is_the_record_s(case, recorded):
    """Step, steps, sigma and branch, as an operation is told them, are those of the run."""
    told: list[At] = []

    def listen(values: torch.Tensor, at: At) -> torch.Tensor:
        told.append(at)
        return values

    attentions = [b.name for b in blocks_of(case.denoiser) if "image" in b.sites[0].streams]
    name = f"{attentions[len(attentions) // 2]}.attention.image"
    with edit(case.pipe, Edit(name, listen)):
        images = case(**PAIR)
    run = recorded(case).run
    assert [at.step for at in told] == list(np.repeat(range(3), case.branches))
    assert {at.steps for at in told} == {3}
    np.testing.assert_array_equal(
        np.array([at.sigma for at in told], np.float32), np.repeat(run.sigma.values, case.branches)
    )
    assert {at.branch for at in told} == {*run.branch.values.tolist()}
    assert {at.rows for at in told} == {(0, 1)}
    np.testing.assert_array_equal(images, recorded(case).images)


@pytest.mark.parametrize("name", ["flux_cfg", "sd_cfg"])
@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_a_branch_is_edited_alone(name, branch, tmp_path):
    case = CASES[name]
    site = SITE if case.is_flux else "mid.00.00.attention.image"
    with (
        edit(case.pipe, Edit(site, Scale(0.0), branch=branch)),
        record(case.pipe, tmp_path / "run.zarr"),
    ):
        case()
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    norms = run.attention_norm.sel(block=site.rsplit(".", 2)[0], stream="image")
    other = "negative" if branch == "positive" else "positive"
    assert (norms.sel(branch=branch) == 0).all()
    assert (norms.sel(branch=other) > 0).all()


def test_rows_are_edited_alone(plain):
    seen = watched(CASES["flux"], Edit(SITE, Scale(0.0), rows=(1,)))
    torch.testing.assert_close(at(seen, 0)[0], at(plain, 0)[0], rtol=0, atol=0)
    assert not at(seen, 0)[1].any()


def test_text_and_its_padding_are_edited_apart_however_long_each_text_is(plain):
    case = CASES["flux"]
    site, prompts = SITE.replace("image", "text"), ["a man", PROMPT]
    lengths = [len(case.pipe.tokenizer_2(text).input_ids) for text in prompts]
    assert lengths[0] != lengths[1]
    for tokens, inside in (("text", True), ("padding", False)):
        seen = watched(case, Edit(site, Scale(0.0), tokens=tokens), prompt=prompts)
        for values, length in zip(at(seen, 0, site), lengths, strict=True):
            assert bool(values[:length].any()) is not inside
            assert bool(values[length:].any()) is inside


def test_a_mask_edits_the_tokens_that_it_names(plain):
    y, x = 4, 6
    mask = np.zeros((y, x), bool)
    mask[1:3, 2:4] = True
    seen = watched(CASES["flux"], Edit(SITE, Scale(2.0), tokens=mask, steps=(0, 1)))
    flat = torch.from_numpy(mask.flatten())
    expected = torch.where(flat[None, :, None], 2 * at(plain, 0), at(plain, 0))
    torch.testing.assert_close(at(seen, 0), expected, rtol=0, atol=0)


# What is done.


def test_rows_of_a_batch_are_swapped(plain):
    seen = watched(CASES["flux"], Edit(SITE, Swap((1, 0)), steps=(0, 1)))
    torch.testing.assert_close(at(seen, 0), at(plain, 0).flip(0), rtol=0, atol=0)
    one = watched(CASES["flux"], Edit(SITE, Swap((0,)), rows=(1,), steps=(0, 1)))
    torch.testing.assert_close(at(one, 0), at(plain, 0)[[0, 0]], rtol=0, atol=0)


def test_edits_are_made_in_their_order(plain):
    zero, swap = Edit(SITE, Scale(0.0), rows=(0,)), Edit(SITE, Swap((1, 0)))
    first = at(watched(CASES["flux"], zero, swap), 0)
    assert first[0].any()
    assert not first[1].any()
    second = at(watched(CASES["flux"], swap, zero), 0)
    assert second[1].any()
    assert not second[0].any()
    with edit(CASES["flux"].pipe, zero):  # the first to be entered is made first
        nested = at(watched(CASES["flux"], swap), 0)
    torch.testing.assert_close(nested, first, rtol=0, atol=0)


@pytest.mark.parametrize("direction", [(32,), (24, 32)], ids=str)
def test_a_direction_is_added_in_units_of_the_site_s_own_norm(direction, plain):
    given = np.random.default_rng(0).normal(size=direction).astype(np.float32)
    seen = watched(CASES["flux"], Edit(SITE, Add(7 * given, 0.5), steps=(0, 1)))
    then, now = at(plain, 0).double(), at(seen, 0).double()
    added = now - then
    own = then.square().sum(-1).mean(-1).sqrt()
    length = added.square().sum(-1).mean(-1).sqrt()
    torch.testing.assert_close(length, 0.5 * own, rtol=1e-5, atol=0)
    unit = torch.from_numpy(given).double().expand_as(added)
    cosine = torch.nn.functional.cosine_similarity(added.flatten(1), unit.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(2, dtype=torch.double), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two samples that keeps a few sites whole."""
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    sites = (SITE, SITE.replace("image", "text"), "single.02.residual.image")
    with record(CASES["flux_cfg"].pipe, path, Capture("full", sites=sites)):
        CASES["flux_cfg"](**PAIR)
    return path


def test_a_recorded_sample_is_put_in_the_place_of_others(whole):
    case, run = CASES["flux_cfg"], xr.open_zarr(whole)
    site = "single.02.residual.image"
    seen = watched(case, Edit(site, Swap(whole, (1, 0)), branch="positive"))
    for step in range(3):
        then = run[site].isel(step=step).sel(branch="positive")[[1, 0]].values
        np.testing.assert_array_equal(at(seen, step, site).numpy(), then)


def test_a_sample_s_own_values_in_its_place_change_nothing(whole):
    case = CASES["flux_cfg"]
    own = Swap(whole, (0, 1))
    with edit(case.pipe, Edit((SITE, "single.02.residual.image"), own)):
        edited = case(**PAIR)
    np.testing.assert_array_equal(edited, case(**PAIR))


def test_the_mean_is_over_the_run_s_samples_at_site_step_and_branch(whole):
    case, run = CASES["flux_cfg"], xr.open_zarr(whole)
    seen = watched(case, Edit(SITE, Mean(whole)))
    for step in range(3):
        for nth, branch in enumerate(("positive", "negative")):
            mean = run[SITE].isel(step=step).sel(branch=branch).astype(float).mean("sample").values
            for row in at(seen, step, nth=nth):
                np.testing.assert_allclose(row.numpy(), mean, rtol=0, atol=1e-6)


# With a record.


@pytest.mark.parametrize("edit_first", [True, False])
@pytest.mark.parametrize("name", ["infusenet_cfg", "sd_controlnet_cfg"])
def test_a_record_shows_the_edited_values_whichever_is_entered_first(name, edit_first, tmp_path):
    case, path = CASES[name], tmp_path / "run.zarr"
    own = "double.01" if case.is_flux else "mid.00.00"
    edits = [
        Edit(f"{own}.attention.image", Scale(0.0), rows=(1,)),
        Edit(f"{own}.residual.image", Scale(3.0), steps=(0, 1)),
    ]
    before = wiring(case.pipe)
    verbs = [edit(case.pipe, edits), record(case.pipe, path)]
    with verbs[not edit_first], verbs[edit_first]:
        case(**PAIR)
    case(**PAIR)
    with record(case.pipe, path):  # the run goes on without edits
        case()
    assert wiring(case.pipe) == before
    run = xr.open_zarr(path).load()
    norms = run.attention_norm.sel(block=own, stream="image")
    assert (norms[1] == 0).all()
    assert (norms[0] > 0).all()
    assert unpacked(run.attrs)["edits"] == json.loads(json.dumps([e.told() for e in edits]))
    assert [json.loads(told or "[]") for told in run.edits.values] == [
        [edits[1].told()],
        [e.told() for e in edits],
        [],
    ]
    share = run.residual_norm.sel(block=own, stream="image")
    assert (share[0, 0] / share[2, 0] > 2.9).all()


def test_a_run_has_the_edits_of_all_its_calls(tmp_path):
    case, path = CASES["flux"], tmp_path / "run.zarr"
    edits = [Edit(SITE, Scale(0.0)), Edit(SITE, Scale(0.5))]
    with record(case.pipe, path):
        for one in (*edits, edits[0]):
            with edit(case.pipe, one):
                case()
    run = xr.open_zarr(path)
    assert unpacked(run.attrs)["edits"] == json.loads(json.dumps([e.told() for e in edits]))
    assert [json.loads(told)[0]["factor"] for told in run.edits.values] == [0.0, 0.5, 0.0]


def test_edits_that_are_unused_are_warned_of_and_leave_nothing():
    case = CASES["flux"]
    case()
    before = wiring(case.pipe)
    with pytest.warns(StepscopeWarning, match="nothing was edited: FluxPipeline was not called"):
        with edit(case.pipe, Edit(SITE, Scale(0.0))):
            pass
    assert wiring(case.pipe) == before
    assert pipeline("flux") is case.pipe


def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    pipe._interrupt = True
    return {}


def test_a_call_that_ends_before_the_window_is_warned_of():
    one = Edit(SITE, Scale(0.0), steps=(2, 3))
    with pytest.warns(StepscopeWarning, match=r"edits\[0\] touched nothing: the call ended before"):
        seen = watched(CASES["flux"], one, callback_on_step_end=stop)
    assert len(seen.steps) == 1


def test_a_copy_of_a_pipeline_is_a_plain_one(sd):
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    with edit(sd, Edit("*.residual.image", Scale(0.0))):
        sd(PROMPT, generator=seeds[0], **SMALL)
        other = copy.deepcopy(sd)
    images = other(PROMPT, generator=torch.Generator().manual_seed(0), **SMALL).images
    np.testing.assert_array_equal(sd(PROMPT, generator=seeds[1], **SMALL).images, images)
