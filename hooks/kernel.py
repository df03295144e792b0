"""The squares of a site's streams, summed over tokens, channels or both in one reading, by a Triton kernel.

The only module that knows Triton, which comes with PyTorch for CUDA. Sums have a fixed order, so that the
same values give the same bits.
"""

from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

ROWS = 8  # tokens that a program has under way
GROUP = 64  # tokens that a program sums
WIDTH = 1024  # channels that a program sums, at most


class Group(NamedTuple):
    """Tokens that one program sums: of which tensor (0 or 1), row of the batch, first token, how many."""

    tensor: int
    row: int
    first: int
    size: int


def usable(device: torch.device) -> bool:
    """Whether the kernel runs on a device."""
    return device.type == "cuda" and _is_installed()


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


def width(channels: int) -> int:
    """Channels of one program: a power of 2."""
    return min(WIDTH, 1 << (channels - 1).bit_length())


@cache
def _kernel() -> Any:
    import triton
    import triton.language as tl

    @triton.jit
    def sums(
        one,
        other,
        groups,
        of_channels,
        of_groups,
        of_tokens,
        batch_one,
        token_one,
        batch_other,
        token_other,
        channels,
        blocks,
        tokens_per_row,
        CHANNELS: tl.constexpr,
        TOKENS: tl.constexpr,
        GROUP: tl.constexpr,
        ROWS: tl.constexpr,
        WIDTH: tl.constexpr,
    ):
        group = tl.program_id(0)
        block = tl.program_id(1)
        which = tl.load(groups + 4 * group)
        row = tl.load(groups + 4 * group + 1)
        first = tl.load(groups + 4 * group + 2)
        count = tl.load(groups + 4 * group + 3)
        at = block * WIDTH + tl.arange(0, WIDTH)
        inside = at < channels
        total = tl.zeros((ROWS, WIDTH), tl.float32)
        base = tl.where(
            which == 0,
            one + row.to(tl.int64) * batch_one + first.to(tl.int64) * token_one,
            other + row.to(tl.int64) * batch_other + first.to(tl.int64) * token_other,
        )
        step = tl.where(which == 0, token_one, token_other)
        for begin in range(0, GROUP, ROWS):
            token = begin + tl.arange(0, ROWS)
            mask = (token < count)[:, None] & inside[None, :]
            value = tl.load(base + token[:, None] * step + at[None, :], mask=mask, other=0.0)
            value = value.to(tl.float32)
            square = value * value
            total += square
            if TOKENS:
                place = (row * tokens_per_row + first + token) * blocks + block
                kept = (token < count) & (first + token < tokens_per_row) & (which == 0)
                tl.store(of_tokens + place, tl.sum(square, 1), mask=kept)
        summed = tl.sum(total, 0)
        if CHANNELS:
            tl.store(of_channels + group * channels + at, summed, mask=inside)
        else:
            tl.store(of_groups + group * blocks + block, tl.sum(summed, 0))

    return sums


def squares(
    streams: list[torch.Tensor],
    groups: torch.Tensor,
    *,
    of_channels: torch.Tensor | None = None,
    of_groups: torch.Tensor | None = None,
    of_tokens: torch.Tensor | None = None,
) -> None:
    """Sum the squares of one or two streams (row of the batch, token, channel) in float32, in one launch.

    groups: (group, 4), int32 on the device. Where the sums go, on the device too: of_channels (group,
    channel); or of_groups (group, block of channels); and of_tokens (row, token, block of channels), for
    the first tokens of the first stream. Channels lie one after the other in memory.
    """
    one, other = streams[0], streams[-1]
    channels = one.shape[-1]
    wide = width(channels)
    blocks = -(-channels // wide)
    nowhere = of_channels if of_groups is None else of_groups
    launch = _kernel()[(len(groups), blocks)]
    # Triton launches on the card that is current, which may be another
    with torch.cuda.device(one.device) if one.is_cuda else nullcontext():
        launch(
            one,
            other,
            groups,
            nowhere if of_channels is None else of_channels,
            nowhere if of_groups is None else of_groups,
            nowhere if of_tokens is None else of_tokens,
            one.stride(0),
            one.stride(1),
            other.stride(0),
            other.stride(1),
            channels,
            blocks,
            1 if of_tokens is None else of_tokens.shape[1],
            CHANNELS=of_channels is not None,
            TOKENS=of_tokens is not None,
            GROUP=GROUP,
            ROWS=ROWS,
            WIDTH=wide,
            num_warps=4,
        )
