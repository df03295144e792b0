"""Rows that are alike go through a block once, and nothing else of them is other than it was."""

from typing import Any

import numpy as np
import pytest
import torch

from stepscope.hooks import Edit, Scale, edit
from stepscope.hooks.alike import Shared, alike_once, first_alike, networks_of, rows_given
from stepscope.hooks.families import blocks_of
from tests.cases import CASES, CONTROL, PROMPT


def test_the_first_row_that_equals_a_row_stands_for_it():
    rows = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    rows[2], rows[4] = rows[0], rows[1]
    beside = torch.tensor([0.0, 1.0, 0.0, 2.0, 3.0])[:, None]  # rows 1 and 4 differ here
    assert first_alike([rows]) == [0, 1, 0, 3, 1]
    assert first_alike([rows, beside]) == [0, 1, 0, 3, 4]
    rows[3] = torch.nan
    assert first_alike([rows[[3, 3]]]) == [0, 1]
    turned = torch.tensor([[1.0, 2.0], [2.0, 1.0]])  # of one sum
    assert first_alike([turned]) == [0, 1]


def test_arguments_that_are_not_known_are_left_alone():
    two, three = torch.zeros(2, 4), torch.zeros(3, 4)
    assert rows_given({"hidden_states": two, "temb": two, "joint_attention_kwargs": {}}) is not None
    assert rows_given({"hidden_states": two, "joint_attention_kwargs": {"a": 1}}) is None
    assert rows_given({"hidden_states": two, "temb": three}) is None
    assert rows_given({"image_rotary_emb": two}) is None


def called(case: Any, *edits: Edit, once: bool) -> tuple[np.ndarray, Shared]:
    """Images of three rows from one noise and one from another."""
    noise = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(3))[[0, 0, 0, 1]]
    more = {"control_image": CONTROL.expand(4, -1, -1, -1)} if case.has_controlnet else {}
    with alike_once(*networks_of(case.pipe) if once else ()) as shared, edit(case.pipe, edits):
        images = case(seeds=(0,) * 4, latents=noise, prompt=[PROMPT] * 4, steps=2, **more)
    return images, shared


@pytest.mark.parametrize("name", ["flux_cfg", "infusenet"])
def test_rows_are_computed_once_until_an_edit_parts_them(name):
    case = CASES[name]
    networks = networks_of(case.pipe)
    # passes of a step through each block; InfuseNet's first has one identity for all rows: left alone
    blocks, beside = (
        len(blocks_of(network)) - i for i, network in enumerate([*networks, *networks][:2])
    )
    beside *= case.has_controlnet
    blocks, after = case.branches * blocks, case.branches * (blocks - 3)
    third = blocks_of(case.denoiser)[2].name
    halved = Edit(f"{third}.residual.image", Scale(0.5), steps=(0, 1), rows=(1,))
    for edits, computed in (
        ((), 2 * 2 * (blocks + beside)),
        # a third row differs after the edit, and in the whole second step
        ((halved,), 2 * (blocks + beside) + after + 3 * (blocks + beside)),
    ):
        plain, none = called(case, *edits, once=False)
        images, shared = called(case, *edits, once=True)
        assert none == Shared()
        assert shared == Shared(given=4 * 2 * (blocks + beside), computed=computed)
        assert np.abs(images - plain).max() < 1e-4
        assert np.array_equal(images[0], images[2])
    left = [vars(block.module) for network in networks for block in blocks_of(network)]
    assert not any("forward" in one for one in left)


def test_a_block_with_a_hook_inside_computes_every_row():
    case = CASES["flux_cfg"]
    where = blocks_of(case.denoiser)[0].name
    halved = Edit(f"{where}.attention.image", Scale(0.5), rows=(1,))
    plain, _ = called(case, halved, once=False)
    images, shared = called(case, halved, once=True)
    assert np.abs(images - plain).max() < 1e-4
    assert not np.array_equal(images[0], images[1])
    assert shared.given < 4 * case.branches * 2 * len(blocks_of(case.denoiser))
    assert shared.computed < shared.given
