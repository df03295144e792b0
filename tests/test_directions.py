"""Directions are differences of means that were learned from other samples than those they are used on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stepscope.analysis.causal.planned import some_parts
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.grid import Cell
from stepscope.probes.interventions.directions import Directions, turned
from stepscope.probes.interventions.part import Part
from stepscope.probes.interventions.pooled import Regions

SEEDS, PEOPLE = np.array([0, 1, 2] * 3), np.array(["a"] * 3 + ["b"] * 3 + ["c"] * 3)


def directions(prompts: str = "ppppppppp", seeds: np.ndarray = SEEDS) -> Directions:
    means = np.random.default_rng(0).normal(size=(9, 2, 2, 1, 4, 5)).astype(np.float32)
    labels = PEOPLE, np.array([*prompts]), seeds
    return Directions(Path("x.zarr"), means, np.array([1.0, 0.5]), ("a.adapter",), *labels)


def test_each_direction_is_its_difference_of_means():
    of, cell = directions(), Cell(0, "a", "p", 0)
    on, off = of.means[:, 0], of.means[:, 1]
    both = on - off
    for along, expected in {
        "adapter": both[[4, 5, 7, 8]].mean(0),
        "person": both[[1, 2]].mean(0),
        "other": on[[4, 5]].mean(0) - on[[1, 2]].mean(0),
        "face": on[[1, 2]].mean(0) - on[[4, 5, 7, 8]].mean(0),
    }.items():
        np.testing.assert_allclose(of.learned(along, cell, "b"), expected, atol=1e-6)


@pytest.mark.parametrize("along", ["adapter", "person", "other", "face"])
def test_no_direction_is_learned_from_what_it_is_used_on(along):
    """Not from the sample, nor from any with its seed or, where there are several, its prompt."""
    both = directions("ppqppqppq")
    assert both.held_out == ("prompt", "seed")
    for of, cell in ((directions(), Cell(4, "b", "p", 1)), (both, Cell(4, "b", "p", 1))):
        before = of.learned(along, cell, "c")
        shared = ~of.apart(cell)
        assert shared[cell.index]
        spoiled = of.means.copy()
        spoiled[shared] = np.nan
        if along == "adapter":
            spoiled[of.face == cell.face] = np.nan
        assert np.array_equal(replace(of, means=spoiled).learned(along, cell, "c"), before)


def test_without_other_samples_there_is_no_direction():
    with pytest.raises(StepscopeError, match=r"one prompt and one seed.*seeds=\[0,1\]"):
        directions(seeds=np.zeros(9, int)).learned("person", Cell(0, "a", "p", 0))
    with pytest.raises(StepscopeError, match=r"no sample to learn the direction 'person' for 'z'"):
        directions().learned("person", Cell(0, "z", "p", 0))
    with pytest.raises(StepscopeError, match=r"no direction at b\.adapter"):
        directions().place("b.adapter")


def test_the_step_is_that_of_the_nearest_sigma():
    of = directions()
    assert [of.at(sigma) for sigma in (1.0, 0.76, 0.74, 0.1)] == [0, 0, 1, 1]


def test_a_random_basis_keeps_lengths_and_angles():
    vectors = directions().learned("person", Cell(0, "a", "p", 0))
    found = turned(vectors, ["a.adapter"], 3)
    flat, other = (v.reshape(-1, v.shape[-1]) for v in (vectors, found))
    np.testing.assert_allclose(other @ other.T, flat @ flat.T, rtol=1e-4, atol=1e-6)
    assert not np.allclose(found, vectors)
    assert not np.allclose(found, turned(vectors, ["a.adapter"], 4))
    assert np.array_equal(found, turned(vectors, ["a.adapter"], 3))


def test_regions_are_means_of_their_tokens_and_go_back_to_them():
    regions = Regions((4, 6), 2)
    image = torch.arange(24.0).reshape(1, 24, 1)
    pooled = regions.pooled(image)
    rows = image.reshape(4, 6)
    expected = [rows[y : y + 2, x : x + 3].mean() for y in (0, 2) for x in (0, 3)]
    torch.testing.assert_close(pooled.flatten(), torch.stack(expected))
    assert regions.spread(pooled).reshape(4, 6)[3].tolist() == [expected[2]] * 3 + [expected[3]] * 3
    torch.testing.assert_close(regions.pooled(regions.spread(pooled)), pooled)
    with pytest.raises(StepscopeError, match="4 x 6 image tokens are not cut into 4 x 4"):
        Regions((4, 6), 4)
    with pytest.raises(StepscopeError, match="24 image tokens, and a site has 9"):
        regions.pooled(torch.zeros(1, 9, 1))


@pytest.mark.parametrize(
    "values",
    [
        {"along": "person", "to": 1, "sites": ()},
        {"along": "person"},
        {"to": 1},
        {"along": "persons", "to": 1},
        {"along": "person", "to": "much"},
        {"along": "person", "to": 1, "learned": "elsewhere"},
        {"along": "person", "to": 1, "donor": "same"},
        {"along": "adapter", "to": 1, "donor": "other"},
        {"do": "zero", "pooled": True},
        {"do": "zero", "learned": "there"},
        {"do": "zero", "along": "person"},
    ],
)
def test_a_steered_part_that_means_nothing_is_refused(values):
    with pytest.raises(StepscopeError, match="part a: "):
        Part("a", **{"do": "steer", "sites": ("*.adapter",), **values})


def test_a_paper_names_parts_that_the_study_has():
    edit_ = {"parts": [{"name": "own x1"}, {"name": "own x2"}]}
    assert some_parts("directions", edit_, ["own x2"]) == [{"name": "own x2"}]
    with pytest.raises(StepscopeError, match=r"causal\.directions\.parts: no 'own x3'"):
        some_parts("directions", edit_, ["own x3"])
