"""Norms from one reading of each site are those of plain reductions, and the kernel sums as it should."""

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

from stepscope.hooks import Capture, kernel, record
from tests.cases import CASES
from tests.small import opened

NAMES = ("attention_norm", "residual_norm", "residual_norm_without_massive", "massive_share")
MAPS = ("attention_token_norm", "residual_token_norm")


def summed(streams: list[torch.Tensor], groups: torch.Tensor, **into: Any) -> None:
    """What `kernel.squares` makes, by PyTorch."""
    squares = [stream.double().square() for stream in streams]
    for i, (which, row, first, size) in enumerate(groups.tolist()):
        part = squares[which][row, first : first + size]
        if into["of_channels"] is not None:
            into["of_channels"][i] = part.sum(0)
        else:
            blocks = part.sum(0).split(kernel.width(part.shape[-1]))
            into["of_groups"][i] = torch.stack([block.sum() for block in blocks])
    if into["of_tokens"] is not None:
        count = into["of_tokens"].shape[1]
        blocks = squares[0][:, :count].split(kernel.width(squares[0].shape[-1]), -1)
        into["of_tokens"][:] = torch.stack([block.sum(-1) for block in blocks], -1)


@pytest.fixture
def once(monkeypatch):
    """The kernel is taken for usable, and is made by PyTorch; how often it is launched."""
    launched: list[int] = []

    def squares(streams: list[torch.Tensor], groups: torch.Tensor, **into: Any) -> None:
        launched.append(len(streams))
        summed(streams, groups, **dict.fromkeys(("of_channels", "of_groups", "of_tokens")) | into)

    monkeypatch.setattr(kernel, "usable", lambda device: True)
    monkeypatch.setattr(kernel, "squares", squares)
    return launched


@pytest.mark.parametrize("massive", [0, 2])
@pytest.mark.parametrize("name", ["flux_cfg", "infusenet_cfg", "sd_cfg", "qwen_cfg"])
def test_one_reading_gives_what_plain_reductions_give(name, massive, once, monkeypatch, tmp_path):
    case, capture = CASES[name], Capture(level="tokens", massive=massive)
    seeds = (0, 1)
    with record(case.pipe, tmp_path / "once.zarr", capture):
        case(seeds)
    assert once
    monkeypatch.setattr(kernel, "usable", lambda device: False)
    with record(case.pipe, tmp_path / "plain.zarr", capture):
        case(seeds)
    one, plain = opened(tmp_path / "once.zarr"), opened(tmp_path / "plain.zarr")
    for variable in (*NAMES, *MAPS, *(("contribution",) if "contribution" in plain else ())):
        assert plain[variable].notnull().any()
        np.testing.assert_allclose(one[variable], plain[variable], rtol=2e-5, err_msg=variable)


def test_both_streams_of_a_site_take_one_launch(once, tmp_path):
    case = CASES["flux"]
    with record(case.pipe, tmp_path / "run.zarr"):
        case(steps=1)
    sites = len(case.denoiser.transformer_blocks) + len(case.denoiser.single_transformer_blocks)
    assert once == [2] * (2 * sites)


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with PyTorch for CUDA")
def test_the_kernel_sums_as_pytorch_does():
    """By Triton's interpreter, which needs no GPU and is chosen before Triton is imported."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.interpreted_kernel"],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(answer.stdout.split()[-1]) < 1e-6
