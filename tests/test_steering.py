"""A steered sample is an edit by hand, along means that plain hooks see; a kill costs nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from stepscope.analysis.causal.projections import mapped, projections
from stepscope.hooks.edits import Edit, Scale, edit
from stepscope.hooks.errors import EditError, RunError, StepscopeError
from stepscope.probes.grid import Cell
from stepscope.probes.intervene import intervene
from stepscope.probes.interventions import activations
from stepscope.probes.interventions.directions import read_directions
from stepscope.probes.interventions.part import Part
from stepscope.probes.interventions.pooled import Regions
from stepscope.probes.interventions.study import CausalStudy
from stepscope.probes.models import switched_off
from stepscope.probes.replay import continue_rows
from stepscope.probes.reread import Settings, load
from stepscope.probes.rereading import open_rereading
from stepscope.probes.run import run
from tests.shell import infused, listed, study_of

STEPS, STRONG, SITE = 3, 200.0, "single.01.residual.image"
PARTS = (
    Part("own", "steer", (SITE,), steps="all", along="person", to=2),
    Part("nothing given", "steer", (SITE,), steps="all", along="person", to=0),
    Part("nothing else", "steer", (SITE,), steps="all", along="other", to=0),
    Part("taken", "steer", (SITE,), steps="only", every=2, along="adapter", to=-1.5),
    Part("pooled", "steer", (SITE,), steps="all", along="other", to=1, pooled=True),
    Part("random", "steer", (SITE,), "random", "all", along="person", to=1),
    Part("there", "steer", (SITE,), steps="all", along="person", to=2, learned="there"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of three people and two seeds, with tiny random models."""
    folder = tmp_path_factory.mktemp("directions")
    for i, name in enumerate(("ann", "bob", "eve")):
        np.save(folder / f"{name}.npy", np.random.default_rng(i).normal(size=512))
    words = {
        "faces": listed(*(folder / f"{name}.npy" for name in ("ann", "bob", "eve"))),
        "steps": STEPS,
        "batch_size": 6,
        "seeds": "[0,1]",
        "guidance": None,
        "adapter.scale": STRONG,
    }
    run(study_of(infused("schnell", **words, out=folder / "run.zarr")), say=lambda text: None)
    return folder / "run.zarr"


def study(*parts: Part, **more) -> CausalStudy:
    given = {"name": "test", "regions": 2, "learn": ("*.residual.image",), **more}
    return CausalStudy(parts=parts, **given)


@pytest.fixture(scope="module")
def steered(made) -> Path:
    """Every part; the other run is a copy of the run."""
    other = made.with_name("other.zarr")
    shutil.copytree(made, other)
    intervene(other, study(PARTS[0]), say=lambda text: None)
    return intervene(made, study(*PARTS, directions_of=str(other)), say=lambda text: None)


@pytest.fixture(scope="module")
def found(steered) -> xr.Dataset:
    return xr.open_zarr(steered, chunks=None).load()


def finals(found: xr.Dataset, part: str) -> np.ndarray:
    return found["final_latents"].values[found["part"].values == part]


def loaded_run(path: Path):
    opened = open_rereading(path)
    return opened, load(opened, Settings()), list(opened.cells)


def test_means_are_what_plain_hooks_see_with_the_adapter_and_without_it(made, steered):
    opened, loaded, cells = loaded_run(made)
    stored = xr.open_zarr(activations.folder(steered), chunks=None)
    seen: list[torch.Tensor] = []
    block = loaded.pipe.transformer.single_transformer_blocks[1]
    handle = block.register_forward_hook(lambda module, args, output: seen.append(output[1]))
    for step in range(STEPS):
        latents = opened.read("latents", range(6))[:, step]
        for state, models in (("on", loaded), ("off", switched_off(loaded))):
            seen.clear()
            once = continue_rows(models, cells, latents, step, steps=1)
            here = stored.sel(adapter_state=state, site=SITE).isel(learned_step=step)
            (values,) = seen
            np.testing.assert_allclose(
                here["activation_mean"], values.mean(1), rtol=1e-3, atol=1e-5
            )
            norm = values.square().sum(-1).mean(-1).sqrt()
            np.testing.assert_allclose(here["activation_norm"], norm, rtol=1e-4)
            if state == "on":
                x0 = opened.read("x0", range(6))[:, step]
                assert np.allclose(once.x0, x0, rtol=0, atol=1e-5 * np.abs(x0).max())
    handle.remove()
    assert (stored["activation_mean"].sel(adapter_state="on") != 0).any()


def test_a_step_before_the_adapter_adds_anything_has_no_direction(steered):
    """The stream after the first block is read before what the adapter adds there."""
    stored = xr.open_zarr(activations.folder(steered), chunks=None)["activation_mean"]
    first = stored.sel(site="double.00.residual.image")
    assert np.array_equal(first.sel(adapter_state="on"), first.sel(adapter_state="off"))
    later = stored.sel(site=SITE)
    assert not np.array_equal(later.sel(adapter_state="on"), later.sel(adapter_state="off"))


def by_hand(loaded, cells, start, vectors: np.ndarray, amount: float, *, off: bool) -> np.ndarray:
    """Final latents of a call in which vectors (step, row, token, channel) are added."""
    added = torch.from_numpy(vectors)
    edits = [Edit("*.adapter", Scale(0.0))] if off else []
    edits.append(Edit(SITE, lambda values, at: values + amount * added[at.step].to(values)))
    with edit(loaded.pipe, edits):
        return continue_rows(loaded, cells, start, 0).final


def test_a_steered_sample_is_an_edit_by_hand(made, found, steered):
    opened, loaded, cells = loaded_run(made)
    stored = xr.open_zarr(activations.folder(steered), chunks=None)["region_mean"]
    start, regions = opened.read("latents", range(6))[:, 0], Regions((8, 8), 2)
    faces, seeds = stored["face"].values, stored["seed"].values
    on, off = (stored.sel(adapter_state=s, steered_site=SITE).values for s in ("on", "off"))

    def mean(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return values[rows].mean(0)

    own, pooled = [], []
    for cell in cells:
        apart = seeds != cell.seed
        mine, other = faces == cell.face, faces == opened.others[cell.face]
        own.append(mean(on - off, apart & mine))
        pooled.append((mean(on, apart & other) - mean(on, apart & mine)).mean(1, keepdims=True))
    spread = [regions.spread(torch.from_numpy(v).contiguous()).numpy() for v in own]
    for part, vectors, amount, without in (
        ("own", np.stack(spread, 1), 2.0, True),
        ("pooled", np.stack(pooled, 1), 1.0, False),
    ):
        expected = by_hand(loaded, cells, start, vectors, amount, off=without)
        before = finals(found, "nothing given" if without else "nothing else")
        difference = np.abs(finals(found, part) - expected).max()
        assert difference <= 1e-3 * np.abs(expected - before).max()


def test_a_multiple_of_zero_changes_no_bit(made):
    opened, loaded, cells = loaded_run(made)
    out = intervene(made, study(PARTS[1], name="zero"), say=lambda text: None)
    same = intervene(made, study(PARTS[2], name="same"), say=lambda text: None)
    start = opened.read("latents", range(6))[:, 0]
    with edit(loaded.pipe, Edit("*.adapter", Scale(0.0))):
        expected = continue_rows(loaded, cells, start, 0).final
    given, other = (xr.open_zarr(path, chunks=None) for path in (out, same))
    assert np.array_equal(finals(given, "nothing given"), expected)
    assert np.array_equal(finals(other, "nothing else"), opened.read("final_latents", range(6)))


def test_what_is_taken_starts_with_the_adapter(made, found):
    """In a window of two steps, or the last one; the first step alone is the run's own until then."""
    opened = open_rereading(made)
    rows = (found["part"] == "taken").values
    assert set(found["at"].values[rows].tolist()) == {0, 2}
    last = found["final_latents"].values[rows & (found["at"].values == 2)]
    recorded = opened.read("final_latents", range(6))
    without = finals(found, "nothing given")
    assert not np.allclose(last, recorded, atol=1e-4)
    assert np.abs(last - recorded).max() < np.abs(last - without).max()


def test_another_runs_directions_are_taken_from_there(found):
    assert np.array_equal(finals(found, "there"), finals(found, "own"))


def test_a_study_without_another_run_leaves_those_parts_out(made, found):
    out = intervene(made, study(PARTS[1], PARTS[-1], name="alone"), say=lambda text: None)
    parts = xr.open_zarr(out, chunks=None)["part"].values.tolist()
    assert "nothing given" in parts
    assert "there" not in parts


def test_projections_are_those_by_hand_and_blank_without_a_direction(steered):
    found = projections(steered)
    of = read_directions(activations.folder(steered), pooled=True)
    norm = xr.open_zarr(activations.folder(steered), chunks=None)["activation_norm"].values
    site, sample, step = of.place(SITE), 3, 1
    cell = Cell(sample, *(column.tolist()[sample] for column in (of.face, of.prompt, of.seed)))
    means = of.means[:, :, step, site, 0]
    others = (of.seed == cell.seed) & (of.face != cell.face)
    for name, along, difference in (
        ("of_adapter", "adapter", means[sample, 0] - means[sample, 1]),
        ("of_face", "face", means[sample, 0] - means[others, 0].mean(0)),
    ):
        direction = of.learned(along, cell)[step, site, 0]
        expected = difference @ direction / np.linalg.norm(direction) / norm[sample, 0, step, site]
        here = found[name].sel(site=SITE).values[sample, step]
        assert here == pytest.approx(expected, rel=1e-4)
    assert found.attrs["held_out"] == ["seed"]
    assert found["of_adapter"].sel(site="double.00.residual.image").isnull().all()
    made = mapped(found, "of_adapter", ".residual.image", 0.05)
    assert made.mean.shape == (len(made.sites), STEPS) == made.survives.shape


def test_what_was_learned_is_kept_and_the_rest_is_learned(made, steered, monkeypatch):
    real, calls = activations._measured, []

    def stopped(learning, loaded, cells, step):
        calls.append(len(cells))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(learning, loaded, cells, step)

    halves = study(PARTS[1], name="halves", rows=4)
    monkeypatch.setattr(activations, "_measured", stopped)
    with pytest.raises(KeyboardInterrupt):
        intervene(made, halves, say=lambda text: None)
    path = activations.folder(made / "interventions" / "halves")
    assert xr.open_zarr(path, chunks=None)["done"].values.tolist() == [True] * 2 + [False] * 4
    with pytest.raises(RunError, match="unfinished"):
        read_directions(path)
    monkeypatch.setattr(activations, "_measured", real)
    intervene(made, halves, say=lambda text: None)
    a, b = (
        xr.open_zarr(p, chunks=None)["region_mean"] for p in (path, activations.folder(steered))
    )
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"directions_of": "nowhere.zarr"}, RunError, "nowhere.zarr has no directions of a study"),
        ({"regions": 3}, StepscopeError, "8 x 8 image tokens are not cut into 3 x 3"),
        ({"learn": ("*.residual.imag",)}, EditError, "residual.imag"),
        ({"learn": ("*.residual.text",)}, StepscopeError, "name image streams"),
        ({"seeds": (0,), "faces": ("dan",)}, StepscopeError, "no 'dan'"),
    ],
)
def test_what_cannot_be_learned_is_refused(made, change, error, said):
    with pytest.raises(error, match=said):
        intervene(
            made, study(PARTS[0], **{"name": f"wrong{len(said)}", **change}), say=lambda text: None
        )


def test_activations_of_other_sites_are_not_mixed(made, steered):
    wrong = study(PARTS[0], name="test", learn=("*.attention.image",))
    with pytest.raises(RunError, match="another study of this name"):
        intervene(made, wrong, say=lambda text: None)
