"""Milliseconds that the bytes of one step's norms take to be read on a GPU, once and by the kernel."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from stepscope.hooks.families import Tokens, family_of
from stepscope.hooks.massive import Channels
from stepscope.hooks.norm_buffer import NormBuffer, norm_into
from stepscope.hooks.observe import MEASURES, PASS_STREAMS
from stepscope.hooks.one_reading import OneReading

TEXT, TENSORS = 512, 12  # as many tensors as the cache of no card holds


def reading(network: Any, side: int, device: str) -> dict[str, float]:
    """Of a transformer's sites: a sum over all bytes, the kernel with all that makes the norms, and plain
    reductions of PyTorch. Says how far the kernel's norms are from plain ones in float64."""
    blocks = len(network.transformer_blocks) + len(network.single_transformer_blocks)
    grid, wide = (side // 16, side // 16), network.inner_dim
    tokens = Tokens(grid[0] * grid[1], 0, grid, TEXT)
    like: Any = {"device": device, "dtype": torch.bfloat16}
    pairs = [
        (torch.randn(1, tokens.image, wide, **like), torch.randn(1, TEXT, wide, **like))
        for _ in range(TENSORS)
    ]
    norms = NormBuffer(len(MEASURES) * blocks * len(PASS_STREAMS))
    maps = NormBuffer(2 * blocks)
    for buffer, shape in ((norms, (1,)), (maps, (1, tokens.image))):
        buffer.start_pass((0, 0), shape, 1, torch.device(device))
    once = OneReading(family_of(network), blocks, 2, PASS_STREAMS)
    channels, into = Channels(2), torch.empty(1, device=device)

    def by_kernel(*, with_map: bool) -> None:
        once.begin()
        for block in range(blocks):
            for quantity in range(2):
                named = [
                    *zip(("image", "text"), pairs[(2 * block + quantity) % TENSORS], strict=True)
                ]
                once.read(quantity, block, named, tokens, (TEXT,), with_map=with_map)
        once.write(norms, maps)

    def by_torch() -> None:
        for block in range(blocks):
            for stream in pairs[2 * block % TENSORS]:
                norm_into(into, stream)
            for place, stream in enumerate(pairs[(2 * block + 1) % TENSORS]):
                channels.read(2 * block + place, 0, stream)
        channels.reduce()

    def bytes_once() -> None:
        for block in range(2 * blocks):
            for stream in pairs[block % TENSORS]:
                sum_of_bytes(stream, into)

    size = sum(t.numel() * t.element_size() for t in pairs[0]) * 2 * blocks
    made: dict[str, float] = {"GB": size / 1e9}
    if device == "cuda":
        made["ms once"] = _timed(bytes_once)
        made["ms by the kernel"] = _timed(lambda: by_kernel(with_map=False))
        made["ms by the kernel with maps"] = _timed(lambda: by_kernel(with_map=True))
        slots = norms.now.unflatten(0, (len(MEASURES), blocks, len(PASS_STREAMS)))
        want = torch.stack([one.double().flatten().norm() for one in pairs[0]])
        text = PASS_STREAMS.index("text")
        have = torch.stack([slots[0, 0, 0, 0], slots[0, 0, text, 0]]).double()
        made["largest difference of a norm"] = float(((have - want) / want).abs().max())
    made["ms by PyTorch"] = _timed(by_torch)
    return made


def sum_of_bytes(stream: torch.Tensor, into: torch.Tensor) -> None:
    """Read a tensor once and do as little as can be with it, by a kernel that does nothing else."""
    _reader()[(264,)](stream, into, stream.numel(), WIDTH=8192, num_warps=8)


@cache
def _reader() -> Any:
    import triton
    import triton.language as tl

    @triton.jit
    def read(values, into, count, WIDTH: tl.constexpr):
        total = tl.zeros((WIDTH,), tl.float32)
        for first in range(tl.program_id(0) * WIDTH, count, tl.num_programs(0) * WIDTH):
            at = first + tl.arange(0, WIDTH)
            total += tl.load(values + at, mask=at < count, other=0.0).to(tl.float32)
        tl.atomic_add(into, tl.sum(total))

    return read


def _timed(work: Callable[[], None], times: int = 20) -> float:
    """Of one of several in a row, on the device's clock, replayed as a CUDA graph: launching hundreds of
    short kernels from Python takes longer than they do, and goes on beside the model's own."""
    work()
    if not torch.cuda.is_available():
        return float("nan")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(times):
        graph.replay()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / times
