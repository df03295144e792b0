"""From what was seen of one pipeline call to the arrays of its samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stepscope.hooks.injections.contributions import Contributions
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import MEASURES, PASS_STREAMS, Observer
from stepscope.hooks.sites import QUANTITIES

NORMS = {
    "attention": "attention_norm",
    "residual": "residual_norm",
    "residual_without_massive": "residual_norm_without_massive",
    "massive_share": "massive_share",
}
"""The variable of each measure."""


@dataclass(frozen=True)
class Axes:
    """The axes of a call's arrays: its samples, steps, branches and streams.

    passes: of each step that ran, the branches of each of its passes, in the order of the batch.
    """

    batch: int
    steps: int
    branches: tuple[str, ...]
    streams: tuple[str, ...]
    passes: Sequence[Sequence[tuple[str, ...]]]

    def placed(self) -> Iterator[tuple[Place, int, slice]]:
        """Every part of a pass: the pass, the part's branch, and its rows."""
        for step, passes in enumerate(self.passes):
            for nth, names in enumerate(passes):
                for part, name in enumerate(names):
                    rows = slice(part * self.batch, (part + 1) * self.batch)
                    yield (step, nth), self.branches.index(name), rows

    def missing(self, *inner: int) -> np.ndarray:
        """(sample, step, branch, ...) of NaN."""
        return np.full((self.batch, self.steps, len(self.branches), *inner), np.nan, np.float32)


def norms(observer: Observer, axes: Axes) -> dict[str, np.ndarray]:
    """Each of `NORMS`, (sample, step, branch, block, stream): root mean squares over tokens, and shares."""
    blocks, wanted = len(observer.blocks), len(axes.streams)
    made = {name: axes.missing(blocks, wanted) for name in NORMS.values()}
    norms = observer.norms.read()
    have = [(PASS_STREAMS.index(s), i) for i, s in enumerate(axes.streams) if s in PASS_STREAMS]
    for place, branch, rows in axes.placed():
        if place not in norms:
            continue
        values = norms[place].reshape(len(MEASURES), blocks, len(PASS_STREAMS), -1)
        values = values * per_token(observer, place)
        for measure, name in zip(values, NORMS.values(), strict=True):
            for seen, stream in have:
                made[name][:, place[0], branch, :, stream] = measure[:, seen, rows].T
    return made


def per_token(observer: Observer, place: Place) -> np.ndarray:
    """1 / sqrt(tokens), which makes of an L2 norm over tokens and channels a root mean square over tokens.

    (measure, block, stream, row of the batch); 1 for the shares.
    """
    seen = observer.passes[place]
    blocks = len(observer.blocks)
    counts = np.array(seen.counts, float).reshape(len(QUANTITIES), blocks, len(PASS_STREAMS), 1)
    counts = np.repeat(counts, seen.rows, axis=-1)
    if seen.lengths is not None:
        text = np.array(seen.lengths)
        counts[:, :, PASS_STREAMS.index("text")] = text
        counts[:, :, PASS_STREAMS.index("padding")] = seen.tokens.context - text
    counts = np.maximum(counts, 1)  # what has no token was not read, and is NaN
    attention, residual = counts
    return np.stack([attention, residual, residual, np.ones_like(residual)]) ** -0.5


def maps(observer: Observer, axes: Axes, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Norms of every image token, (sample, step, branch, block, token_y, token_x)."""
    assert observer.maps is not None
    blocks = len(observer.blocks)
    made = {f"{q}_token_norm": axes.missing(blocks, *grid) for q in QUANTITIES}
    maps = observer.maps.read()
    for place, branch, rows in axes.placed():
        values = maps[place].reshape(len(QUANTITIES), blocks, -1, *grid)
        for name, quantity in zip(made, values, strict=True):
            made[name][:, place[0], branch] = quantity[:, rows].swapaxes(0, 1)
    return made


def adapter_norms(observer: Observer, axes: Axes, context: str) -> np.ndarray:
    """Attention norms inside an adapter's network, (sample, step, block, stream), of the positive branch.

    NaN where the network was not run. It runs once a step, before the denoiser: its batch is that of
    the first pass, or in a ControlNet's guess mode the positive part alone.
    """
    blocks = len(observer.blocks)
    made = np.full((axes.batch, axes.steps, blocks, len(axes.streams)), np.nan, np.float32)
    norms = observer.norms.read()
    names = {"text": context} if context != "text" else {}
    for (step, nth), values in norms.items():
        if (step, nth) not in observer.passes or step >= len(axes.passes):
            continue
        parts = axes.passes[step][nth]
        first = 0 if values.shape[-1] == axes.batch else parts.index("positive") * axes.batch
        values = values.reshape(len(MEASURES), blocks, len(PASS_STREAMS), -1)
        values = (values * per_token(observer, (step, nth)))[0]
        for seen, stream in enumerate(PASS_STREAMS):
            name = names.get(stream, stream)
            if name in axes.streams:
                of = values[:, seen, first : first + axes.batch].T
                made[:, step, :, axes.streams.index(name)] = of
    return made


def contribution(added: Contributions, axes: Axes) -> np.ndarray:
    """|added| / |what it is added to|, (sample, step, branch, injection); NaN where no pass ran."""
    made, ratios = axes.missing(len(added.injections)), added.read()
    for place, branch, rows in axes.placed():
        if place in ratios:
            made[:, place[0], branch] = ratios[place][:, rows].T
    return made


def stacked(seen: Mapping[Place, torch.Tensor], axes: Axes) -> np.ndarray:
    """Tensors of passes, (row of the batch, ...), to (sample, step, branch, ...) in float32."""
    made = axes.missing(*next(iter(seen.values())).shape[1:])
    for place, branch, rows in axes.placed():
        if place in seen:
            made[:, place[0], branch] = seen[place][rows].float().cpu().numpy()
    return made
