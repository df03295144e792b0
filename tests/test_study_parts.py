"""Parts of causal studies as values: windows of steps and blocks, and what a part may say."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepscope.hooks.edits import At
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.part import Part
from stepscope.probes.interventions.random_like import RandomLike
from stepscope.probes.interventions.windows import stretches, windows

ADAPTER = ("*.adapter",)


@given(
    st.sampled_from(("only", "first", "from", "all_but", "all")),
    st.integers(1, 30),
    st.integers(1, 9),
)
def test_windows_are_places_and_complement_each_other(word, count, width):
    found = [*windows(word, count, width)]
    every = set(range(count))
    assert all(window.places and set(window.places) <= every for window in found)
    by = {name: {w.at: set(w.places) for w in windows(name, count, width)} for name in
          ("only", "first", "from", "all_but")}  # fmt: skip
    assert set().union(*by["only"].values()) == every
    assert sum(map(len, by["only"].values())) == count
    for at, places in by["first"].items():
        assert places | by["from"][at] == every
        assert not places & by["from"][at]
    for at, places in by["all_but"].items():
        assert places == every - by["only"][at]


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_shuffled_places_are_as_many_as_the_first_and_grow(count, width, seed):
    found = [*windows("shuffled", count, width, seed)]
    first = [*windows("first", count, width)]
    last = count % width or width
    assert [one.at for one in found] == [one.at for one in first]
    assert all(
        len(a.places) in (b.at, b.at - width + last) for a, b in zip(found, first, strict=True)
    )
    assert all({*a.places} < {*b.places} for a, b in pairwise(found))
    assert found == [*windows("shuffled", count, width, seed)]


@given(st.sets(st.integers(0, 20), min_size=1))
def test_stretches_are_the_places_again(places):
    found = [*stretches(tuple(sorted(places)))]
    assert {i for start, end in found for i in range(start, end)} == places
    assert all(a[1] < b[0] for a, b in pairwise(found))


def test_a_random_direction_is_as_long_as_the_way_to_the_other():
    values = torch.randn(1, 5, 8)
    batch = torch.cat([torch.randn(1, 5, 8), values])
    at = At("double.00.adapter", 0, 3, 1.0, "positive", (1,), (1,), batch, slice(None), (5, 5))
    moved = RandomLike((0,), (7,))(values, at) - values
    torch.testing.assert_close(moved.norm(dim=-1), (batch[0] - values[0]).norm(dim=-1)[None])
    units = moved / moved.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(units, units[:, :1].expand_as(units))
    other = RandomLike((0,), (8,))(values, at) - values
    assert not torch.allclose(moved, other)


@pytest.mark.parametrize(
    "values",
    [
        {"do": "zero", "donor": "other", "sites": ADAPTER},
        {"do": "swap", "sites": ADAPTER},
        {"do": "swap", "donor": "others", "sites": ADAPTER},
        {"do": "erase", "sites": ADAPTER},
        {"do": "zero"},
        {"do": "face", "donor": "other", "steps": "only"},
        {"do": "zero", "sites": ADAPTER, "steps": "second"},
        {"do": "scale", "steps": "from"},
        {"do": "scale", "to": "half", "steps": "from"},
        {"do": "prompt", "to": "a man", "steps": "from", "sites": ADAPTER},
        {"do": "prompt", "to": "a man", "steps": "first"},
        {"do": "zero", "sites": ADAPTER, "steps": "first", "clamped": True},
    ],
)
def test_a_part_that_means_nothing_is_refused(values):
    with pytest.raises(StepscopeError):
        Part("a", **values)
