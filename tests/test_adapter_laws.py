"""What holds for every kind of adapter, through the command line; no kind can be left out."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stepscope.probes import check, grid, models, plan
from stepscope.probes.adapters import ADAPTERS
from stepscope.probes.faces import face_files
from stepscope.probes.study import Study, prompts_of
from stepscope.probes.typed import each_adapter
from tests.adapter_words import MADE, off, only_in
from tests.shell import Answer, Words, study_of

MORE = {
    *("infusenet", "ip_adapter_plus", "unet_lora", "face_id", "face_id_plus", "flux_ip_adapter"),
    *("ip_adapter_and_lora", "lora_and_ip_adapter", "instantid_and_lora", "pulid_and_lora"),
}
"""A second run of a kind, or one that has tests of its own: tried by `make test-all`."""


def tried(names: Iterable[str]) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow) if n in MORE else n for n in names]


ALONE = tried(name for name in MADE if "_and_" not in name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the files of every adapter lie, and the runs that several laws read."""
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture
def words_of(folder) -> Callable[..., Words]:
    """`words_of(name, seeds)`: what is typed for a run of that adapter."""

    def of(name: str, seeds: str = "0") -> Words:
        place = folder / f"{name}_{seeds}"
        place.mkdir(exist_ok=True)
        return MADE[name][1](place, list(seeds))

    return of


@pytest.fixture
def made(folder, typed) -> Callable[[Words], xr.Dataset]:
    """`made(words)`: the run of these words, made once for all laws."""

    def of(words: Words) -> xr.Dataset:
        out = folder / f"{blake2b(repr(words).encode()).hexdigest()[:16]}.zarr"
        if not out.exists():
            answer: Answer = typed([*words, f"out={out}"])
            assert answer.status == 0, answer.err
        return xr.open_zarr(out).load()

    return of


@pytest.fixture(params=tried(MADE))
def name(request) -> str:
    return request.param


def loaded(words: Words) -> tuple[Study, models.Models, list[grid.Cell]]:
    study = study_of([one for word in words for one in each_adapter(word)])
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    shape = plan.latent_shape(plan.outline(study))
    return study, models.load(study, files, shape, len(cells)), cells


def test_every_kind_is_tried():
    assert {kind for kind, _ in MADE.values()} == {one.KIND for one in ADAPTERS}


def test_a_recording_means_what_it_says(name, words_of, typed):
    answer = typed(words_of(name), main=check.main)
    assert answer.status == 0, answer.out + answer.err
    line = next(one for one in answer.out.splitlines() if "switching the adapter off" in one)
    assert line.startswith("ok")
    assert " 0 comparisons" not in line


def test_the_plan_is_what_is_recorded(name, words_of, made):
    words = words_of(name)
    run = made(words)
    found = plan.outline(loaded(words)[0])
    for key, (declared, shape) in found.variables.items():
        sizes = (1, *shape) if declared.dims[0] == "sample" else shape
        assert run[key].shape == sizes, key
    assert np.isfinite(run.contribution.values).all()
    assert (run.contribution.max("step") > 0).any()
    np.testing.assert_array_equal(run.injection, found.coordinates["injection"][1])


@pytest.mark.parametrize("name", ALONE)
def test_an_adapter_that_is_off_is_none(name, words_of, made):
    words = words_of(name)
    without = made([*words, *off(name)])
    kept = [w for w in words if not w.startswith(("adapter", "faces", "control"))]
    none = made([*kept, "adapter=none"])
    np.testing.assert_array_equal(without.final_latents, none.final_latents)
    np.testing.assert_array_equal(without.image, none.image)
    assert not without.contribution.values.any()


@pytest.mark.parametrize("name", ALONE)
def test_a_window_opens_in_its_steps_alone(name, words_of, made):
    words = words_of(name)
    late = made([*words, *only_in(name, 1)])
    kept = [w for w in words if not w.startswith(("adapter", "faces", "control"))]
    none = made([*kept, "adapter=none"])
    np.testing.assert_array_equal(late.latents[:, :2], none.latents[:, :2])
    assert not late.contribution[:, [0, 2]].values.any()
    assert late.contribution[:, 1].values.any()
    assert np.abs(late.final_latents - none.final_latents).max() > 1e-3


def test_nothing_is_left_after_an_error(name, words_of):
    study, ours, cells = loaded(words_of(name))

    def final(study: Study = study) -> np.ndarray:
        with ours.ready() as call:
            return np.asarray(ours.sample(cells, call))

    def hooks() -> int:
        modules = [
            one
            for part in ours.pipe.components.values()
            if hasattr(part, "modules")
            for one in part.modules()
        ]
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    before, counted = final(), hooks()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ours.ready() as call:
        ours.sample(cells, call, on_step=fail)
    assert hooks() == counted
    np.testing.assert_array_equal(final(), before)


@pytest.mark.parametrize("name", ALONE)
def test_zeros_at_its_edge_are_the_adapter_off(name, words_of, made):
    words = words_of(name)
    edited = made([*words, "edits=[{sites: '*.adapter', do: zero}]"])
    none = made([*words, *off(name)])
    np.testing.assert_allclose(edited.final_latents, none.final_latents, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    "name",
    tried(
        {kind: name for name, (kind, _) in reversed(MADE.items()) if "_and_" not in name}.values()
    ),
)
def test_an_edit_of_it_where_its_window_is_closed_is_refused(name, words_of, typed):
    words = [*words_of(name), *only_in(name, 0), "--dry"]
    answer = typed([*words, "edits=[{sites: '*.adapter', do: zero, steps: [1, 3]}]"])
    assert answer.status == 2
    assert "would touch nothing in steps 1 to 2: the adapter is on in steps 0 to 0" in answer.line


@pytest.mark.parametrize("name", tried(n for n in MADE if "lora" not in n or "_and_" in n))
def test_two_files_in_one_batch_are_each_alone(name, words_of, made):
    both = made([*words_of(name, "10"), "batch_size=2"])
    alone = made(words_of(name))
    np.testing.assert_allclose(both.latents[1:], alone.latents, rtol=1e-4, atol=5e-5)
    assert np.abs(both.final_latents[0] - both.final_latents[1]).max() > 1e-5


def test_a_plan_names_its_models_with_their_sizes(name, words_of, typed):
    answer = typed([*words_of(name), "--dry"])
    assert answer.status == 0, answer.err
    lines = [line.split() for line in answer.out.splitlines() if line.startswith("  ")]
    roles = {words[0]: words for words in lines if "here" in words}
    assert {"backbone", "adapter"} <= roles.keys()
    assert all(float(words[-3]) > 0 for words in roles.values())


@pytest.mark.parametrize("kind", [one for one in ADAPTERS if one.KIND != "infusenet"])
def test_missing_weights_are_named(kind, words_of, typed):
    name = next(name for name, (of, _) in MADE.items() if of == kind.KIND)
    answer = typed([*words_of(name), "adapter.path=/no/such.safetensors"])
    assert answer.status == 2
    assert "/no/such.safetensors" in answer.line
    assert "adapter" in answer.line


@pytest.mark.parametrize("kind", [one for one in ADAPTERS if len(one.FAMILIES) < 3])
def test_an_adapter_of_another_family_is_refused(kind, words_of, typed):
    name = next(name for name, (of, _) in MADE.items() if of == kind.KIND)
    other = next(family for family in ("sd15", "flux") if family not in kind.FAMILIES)
    answer = typed([*words_of(name), f"backbone.family={other}"])
    assert answer.status == 2
    assert f"adapter={kind.KIND} is made for" in answer.line
