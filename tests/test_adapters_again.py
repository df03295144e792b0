"""Runs of every kind of adapter are read again and continued under edits, through the command line."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from stepscope.hooks.attributes import unpacked
from stepscope.hooks.errors import StepscopeError
from stepscope.probes import intervene, reread
from stepscope.probes.interventions.companions import random_like
from tests.adapter_words import MADE, off
from tests.shell import Words, run_command

IN_SUITE = ("pulid", "ip_adapter_and_lora")
"""Those that the ordinary suite tries: hooks between blocks, and two adapters in the same layers."""
PROMPT = "a man portrait cinematic"
ROUNDING = 2e-4
"""Of latents up to 30: other sizes of a batch, and a sum with zeros in place of no sum."""


class Made(NamedTuple):
    """A run of two faces or pictures; the same with its adapter off; what was read again of it."""

    path: Path
    run: xr.Dataset
    without: xr.Dataset

    def study(self, name: str, *parts: str, **more: Any) -> xr.Dataset:
        """A causal study of these parts."""
        own = (f"edit.name={name}", f"edit.parts=[{','.join(parts)}]")
        words = [f"runs=[{self.path}]", "edit=adapter_window", *own]
        words += [f"{key}={value}" for key, value in more.items()]
        assert run_command(words, intervene.main) == 0
        return opened(self.path / "interventions" / name)


def of_part(study: xr.Dataset, name: str) -> xr.Dataset:
    return study.isel(sample=study["part"] == name)


def opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, chunks=None).load()


def recorded(words: Words, path: Path) -> xr.Dataset:
    assert run_command([*words, f"out={path}"]) == 0
    return opened(path)


@pytest.mark.parametrize("shape", [(512,), (1, 36), (2, 9, 28)])
def test_numbers_at_random_are_as_long_and_as_far_as_the_others(shape):
    own, other = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = random_like("ann", own, other)
    a, b, c = (one.astype(float).ravel() for one in (own, other, found))
    assert c @ c == pytest.approx(b @ b, rel=1e-5)
    assert a @ c == pytest.approx(a @ b, abs=1e-4 * float(np.linalg.norm(a) * np.linalg.norm(b)))
    assert np.linalg.norm(c - b) > 0.5 * np.linalg.norm(b)
    np.testing.assert_array_equal(random_like("ann", own, own), own)
    with pytest.raises(StepscopeError, match="name one form for all"):
        random_like("ann", own, other[..., :5])


@pytest.fixture(
    scope="module",
    params=[n if n in IN_SUITE else pytest.param(n, marks=pytest.mark.slow) for n in MADE],
)
def made(request, tmp_path_factory) -> Made:
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    words = MADE[name][1](folder, ["0", "1"])
    without = recorded([*words, *off(name)], folder / "off.zarr")
    return Made(folder / "run.zarr", recorded(words, folder / "run.zarr"), without)


def test_it_is_read_again_to_the_bit(made):
    two = made.run.sizes["sample"] > 1
    readings = ["carried", "committed", *(["swapped"] if two else [])]
    assert run_command([f"runs=[{made.path}]", "off_from=[0,2]"], reread.main) == 0
    found = {path.name: opened(path) for path in (made.path / "reread").glob("*/")}
    assert found.keys() == {*readings}
    off, run = made.without, made.run
    np.testing.assert_array_equal(found["carried"].carried_x0[:, 0], off.x0[:, 0])
    np.testing.assert_array_equal(found["committed"].committed_latents[:, 0], off.final_latents)
    np.testing.assert_array_equal(found["committed"].committed_latents[:, -1], run.final_latents)
    assert unpacked(found["carried"].attrs)["check"] == {"x0": 0.0, "final_latents": 0.0}
    if two:
        np.testing.assert_array_equal(found["swapped"].swapped_x0[:, 0], run.x0[::-1, 0])


def test_continued_without_a_change_it_ends_as_it_was_recorded(made):
    study = made.study("same", f"{{name: same, do: prompt, to: {PROMPT}, steps: from}}", rows=1)
    again = of_part(study, "same")
    assert again.sizes["sample"] == 2 * made.run.sizes["sample"]
    np.testing.assert_array_equal(again.final_latents, made.run.final_latents[again.base.values])


def test_a_face_or_picture_at_random_leads_to_neither_of_two(made):
    if made.run.sizes["sample"] < 2:
        pytest.skip("it reads nothing")
    study = made.study(
        "random",
        "{name: random, do: face, donor: random, steps: from}",
        "{name: other, do: face, donor: other, steps: from}",
    )
    random, other = (of_part(study, name).isel(sample=0) for name in ("random", "other"))
    own = made.run.final_latents[int(random.base)].values
    ways = [random.final_latents.values - end for end in (own, other.final_latents.values)]
    assert min(np.abs(way).max() for way in ways) > 20 * ROUNDING


def test_edits_at_its_sites_are_of_it_alone_and_of_each_block(made):
    study = made.study(
        "edited",
        "{name: off, do: zero, sites: ['*.adapter'], steps: all}",
        "{name: late, do: zero, sites: ['*.adapter'], steps: from}",
        "{name: scale, do: scale, to: 0.0, steps: from}",
        "{name: blocks, do: zero, sites: ['*.adapter'], steps: all, blocks: only, together: 2}",
    )

    def final(part: str) -> np.ndarray:
        return of_part(study, part).final_latents.values

    without = made.without.final_latents.values[of_part(study, "off").base.values]
    np.testing.assert_allclose(final("off"), without, rtol=0, atol=ROUNDING)
    assert np.abs(made.run.final_latents - made.without.final_latents).max() > 20 * ROUNDING
    np.testing.assert_allclose(final("scale"), final("late"), rtol=0, atol=ROUNDING)
    before = made.run.final_latents.values[of_part(study, "blocks").base.values]
    assert (np.abs(final("blocks") - before).max((1, 2, 3)) > 0).all()


def test_directions_of_blocks_of_other_widths_are_refused_in_one_line(typed, tmp_path):
    words = MADE["ip_adapter"][1](tmp_path, ["0", "1"])
    recorded([*words, "steps=1", "seeds=[0,1]"], tmp_path / "run.zarr")
    typed([])  # what the run said
    answer = typed([f"runs=[{tmp_path / 'run.zarr'}]", "edit=directions"], main=intervene.main)
    assert answer.status == 2
    assert "compares blocks of one width and as many tokens" in answer.line
    assert "and these have 8, 16, 24 channels: name a U-Net's of one level" in answer.line


def test_directions_of_one_level_of_a_u_net_are_learned_and_steered_with(typed, tmp_path):
    words = MADE["ip_adapter"][1](tmp_path, ["0", "1"])
    run = recorded([*words, "steps=1", "seeds=[0,1]"], tmp_path / "run.zarr")
    typed([])
    part = "{name: own, do: steer, along: person, to: 1, sites: ['mid.*.adapter'], steps: all}"
    answer = typed(
        [
            f"runs=[{tmp_path / 'run.zarr'}]", "edit=directions", f"edit.parts=[{part}]",
            "edit.name=steered", "edit.learn=['mid.*.residual.image']", "regions=1",
        ],
        main=intervene.main,
    )  # fmt: skip
    assert answer.status == 0, answer.err
    out = tmp_path / "run.zarr" / "interventions" / "steered"
    learned = opened(out / "activations")
    assert learned.region_mean.sizes["region"] == 1
    assert sorted(learned.site.values) == [
        "mid.00.00.attention.image_prompt",
        "mid.00.00.residual.image",
    ]
    off = learned.activation_mean.sel(adapter_state="off", site="mid.00.00.attention.image_prompt")
    assert not off.values.any()
    made = of_part(opened(out), "own")
    assert np.isfinite(made.final_latents).all()
    assert made.sizes["sample"] == run.sizes["sample"]


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    recorded([*MADE["flux_lora"][1](folder, ["0"]), "seeds=[0,1]", "steps=1"], folder / "r.zarr")
    return folder / "r.zarr"


def test_a_run_without_faces_is_read_again_in_the_ways_that_it_allows(lora_run, typed):
    answer = typed([f"runs=[{lora_run}]"], main=reread.main)
    assert answer.status == 0, answer.err
    assert f"note: without swapped: {lora_run} has an adapter that is given no face" in answer.out
    assert "'metrics=[decode_carried,decode_committed]'" in answer.out
    assert {path.name for path in (lora_run / "reread").glob("*/")} == {"carried", "committed"}


def test_a_direction_is_no_sum_of_layers(lora_run, typed):
    part = "{name: a, do: steer, along: person, to: 1, sites: ['*.adapter'], steps: all}"
    words = [f"runs=[{lora_run}]", "edit=adapter_window", f"edit.parts=[{part}]"]
    answer = typed(words, main=intervene.main)
    assert answer.status == 2
    assert "is what a LoRA adds in several layers" in answer.line
