"""Rows that a network is given alike are computed once, and come out as if they were not."""

import pytest
import torch

from stepscope.probes.adapters.equal_rows import computed_once, groups


def network(seen: list[int], hidden_states, scale, ids, **more):
    """Outputs in a tuple of a list and None, as a ControlNet's are. Of each row alone, by its own scale."""
    seen.append(len(hidden_states))
    return [hidden_states * scale[:, None] + ids.sum(), more["text"] ** 2], None


@pytest.mark.parametrize(
    ("kinds", "computed"),
    [([0, 0, 1, 0], 2), ([2, 1, 0, 0], 3), ([0, 1, 2, 3], 4), ([1, 1, 1, 1], 1)],
)
def test_the_output_is_that_of_every_row(kinds, computed):
    rows, ids = torch.randn(4, 5)[kinds], torch.randn(4, 3)  # as many ids as rows: named as no rows
    given = {"scale": torch.rand(4)[kinds], "text": torch.randn(4, 2)[kinds], "ids": ids}
    seen: list[int] = []

    def run(*args, **more):
        return network(seen, *args, **more)

    (found, text), nothing = computed_once(run, rows, ("ids",), **given)
    (expected, squares), _ = run(rows, **given)
    assert seen == [computed, 4]
    assert torch.equal(found, expected)
    assert torch.equal(text, squares)
    assert nothing is None


def test_rows_that_differ_in_any_argument_are_not_one():
    a, b = torch.zeros(3, 2), torch.tensor([0.0, 0.0, 1e-30])
    assert groups([a, b]) == ([0, 2], [0, 0, 1])
    assert groups([torch.tensor([[0.0], [float("nan")], [float("nan")]])]) == ([0, 1, 2], [0, 1, 2])
