"""Sites have names, in order of execution, and are chosen by pattern."""

import pytest
from torch import nn

from stepscope.hooks import Capture, record
from stepscope.hooks.errors import StepscopeError, UnsupportedPipelineError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.sites import select
from tests.cases import CASES
from tests.models import pipeline

FLUX_BLOCKS = [f"double.{i:02d}" for i in range(3)] + [f"single.{i:02d}" for i in range(5)]


def test_flux_blocks_are_named_in_order_of_execution(recorded):
    run = recorded(CASES["infusenet"]).run
    assert run.block.values.tolist() == FLUX_BLOCKS
    assert run.block_kind.values.tolist() == ["double"] * 3 + ["single"] * 5
    assert run.block_index.values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert run.adapter_block.values.tolist() == [*FLUX_BLOCKS[:2], *FLUX_BLOCKS[3:6]]


def test_unet_blocks_are_named_in_order_of_execution():
    order: list[nn.Module] = []
    case = CASES["sdxl"]
    blocks = blocks_of(case.denoiser)
    handles = [b.module.register_forward_hook(lambda m, *_: order.append(m)) for b in blocks]
    case(steps=1)
    for handle in handles:
        handle.remove()
    assert [b.module for b in blocks] == order
    assert [b.name for b in blocks][:3] == ["down.01.00.00", "down.01.00.01", "mid.00.00"]


def test_patterns_select_sites_in_order_of_execution():
    blocks = blocks_of(pipeline("flux").transformer)
    chosen = select(["single.0[01].*.image", "double.02.attention.*"], blocks)
    assert chosen == [
        "double.02.attention.image",
        "double.02.attention.text",
        "single.00.attention.image",
        "single.00.residual.image",
        "single.01.attention.image",
        "single.01.residual.image",
    ]


def test_unknown_site_is_answered_with_the_closest(tmp_path):
    capture = Capture("full", sites=("double.01.atention.image",))
    with pytest.raises(
        StepscopeError, match=r"'double.01.atention.image'; did you mean 'double.01.att"
    ):
        with record(pipeline("flux"), tmp_path / "run.zarr", capture):
            pytest.fail("there is no such site")


def test_unknown_class_is_answered_with_those_that_are_known():
    with pytest.raises(UnsupportedPipelineError, match=r"Linear.*UNet2DConditionModel"):
        blocks_of(nn.Linear(1, 1))


def test_capture_that_says_two_things_is_refused(unchecked):
    with pytest.raises(StepscopeError, match="no level 'norm'; did you mean 'norms'"):
        Capture("norm")  # pyright: ignore[reportArgumentType]
    with pytest.raises(StepscopeError, match=r"'full' needs it"):
        Capture("full")
    with pytest.raises(StepscopeError, match=r"sites goes with level 'full'"):
        Capture("norms", sites=("double.*",))
