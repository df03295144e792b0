"""Forward hooks on a network's sites, and the tapes they write to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.clock import Clock
from stepscope.hooks.compiled import after, before
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.families import Family, Tokens
from stepscope.hooks.families.arguments import rows_of
from stepscope.hooks.massive import Channels
from stepscope.hooks.norm_buffer import NormBuffer, Place, norm_into, token_norm_into
from stepscope.hooks.one_reading import OneReading
from stepscope.hooks.order import reading
from stepscope.hooks.sites import QUANTITIES, Block, Site, edited_streams
from stepscope.hooks.streams import spans
from stepscope.hooks.texts import Texts

PASS_STREAMS = ("image", "reference", "text", "padding", "image_prompt")
"""The streams of a pass; inside an adapter the text may be a face."""

MEASURES = ("attention", "residual", "residual_without_massive", "massive_share")
"""What there is a number of, for every block and stream."""


@dataclass
class Pass:
    """One forward pass: its tokens, the rows of its batch, and how many tokens of text are real.

    lengths: of each row, None where not known. counts: tokens of every slot of attention and
    residual, where they are the same for all rows. output: what the network returned, if kept.
    """

    tokens: Tokens
    rows: int
    lengths: tuple[int, ...] | None
    counts: list[int]
    output: torch.Tensor | None = None


class Observer:
    """Reads the sites of a network's blocks while a clock runs.

    family: of the network. blocks: its blocks and, of each, the sites to read. massive: how many of
        the largest channels to leave out of the residual stream's second norm.
    texts: knows how long the text of an embedding is. maps: keep a norm for each image token too.
    whole: names of sites whose tensors are kept as they are. keep: is given each at once.
    outputs: of them those that are no site of a block, and the module that returns each.
    keep_output: keep the network's own.
    may_skip: the network may return without running its blocks (an adapter outside its window).

    passes: what was seen, by place. fault: the first error after the first step of a call, which is over
        then for this observer. norms: a buffer with slots (measure, block, stream).
    maps: a buffer with slots (quantity, block). shapes: (token, channel) of the sites kept whole.
    """

    def __init__(
        self,
        family: Family,
        blocks: Sequence[Block],
        *,
        massive: int = 0,
        texts: Texts | None = None,
        maps: bool = False,
        whole: Sequence[str] = (),
        keep: Callable[[str, Place, torch.Tensor], None] | None = None,
        outputs: Mapping[str, nn.Module] | None = None,
        keep_output: bool = False,
        may_skip: bool = False,
    ) -> None:
        self.family, self.blocks = family, list(blocks)
        self.norms = NormBuffer(len(MEASURES) * len(blocks) * len(PASS_STREAMS))
        self.maps = NormBuffer(len(QUANTITIES) * len(blocks)) if maps else None
        self.passes: dict[Place, Pass] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._whole, self.keep = {*whole}, keep
        self._outputs = dict(outputs or {})
        self._channels = Channels(massive)
        self._once = OneReading(family, len(blocks), massive, PASS_STREAMS)
        self._texts, self._keep_output, self._may_skip = texts, keep_output, may_skip
        self._sites = sum(len(block.sites) for block in blocks)
        self._fired = 0
        self._now = Pass(Tokens(0, 0, (0, 0), 0), 0, None, [])
        self.fault: Exception | None = None

    def reset(self) -> None:
        """Start a pipeline call: nothing has been seen."""
        self.norms.reset()
        if self.maps is not None:
            self.maps.reset()
        self.passes, self.fault = {}, None
        self.shapes = {}
        self._once.reset()

    def attach(self, clock: Clock, network: nn.Module) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""

        def read(hook: Callable[..., None]) -> Callable[..., None]:
            return reading(self._sparing(clock, hook))

        handles = [
            before(network, read(self._before(clock)), with_kwargs=True, outside=True),
            after(network, read(self._after(clock)), outside=True),
        ]
        for index, block in enumerate(self.blocks):
            for site in block.sites:
                handles.append(site.hooked(read(self._site_hook(clock, index, block, site))))
        for name, module in self._outputs.items():
            handles.append(after(module, read(self._whole_hook(clock, name))))
        return handles

    def _sparing(self, clock: Clock, hook: Callable[..., None]) -> Callable[..., None]:
        """The hook, which stops a call in its first step alone: a later error waits in `fault`."""

        def spared(*args: Any) -> None:
            if self.fault is not None:
                return
            try:
                hook(*args)
            except Exception as error:
                if clock.step == 0:
                    raise
                self.fault = error

        return spared

    def _before(self, clock: Clock) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if not clock.running:
                return
            place = clock.step, clock.nth
            rows, device = rows_of(args, kwargs)
            tokens = self.family.tokens(args, kwargs)
            if self._texts is not None:
                tokens = self._texts.told(tokens, args, kwargs, rows)
            self._now = Pass(tokens, rows, tokens.lengths, self._now.counts)
            self._now.counts = [1] * (len(QUANTITIES) * len(self.blocks) * len(PASS_STREAMS))
            self.passes[place] = self._now
            self.norms.start_pass(place, (rows,), clock.steps, device)
            if self.maps is not None:
                self.maps.start_pass(place, (rows, tokens.image), clock.steps, device)
            self._fired = 0
            self._once.begin()

        return hook

    def _after(self, clock: Clock) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not clock.running:
                return
            skipped = self._may_skip and self._fired == 0 and _is_nothing(output)
            sites = self._sites - self._left_out()
            if self._fired != sites and not skipped:
                raise UnsupportedPipelineError(
                    f"{self._fired} of {sites} hooks in {type(module).__name__} fired in step "
                    f"{clock.step}: its blocks were compiled, replaced or skipped after recording began"
                )
            if skipped:
                del self.passes[clock.step, clock.nth]
                return
            self._write_residuals()
            self._once.write(self.norms, self.maps)
            if self._keep_output:
                made = self.family.output(output)
                # a copy: a compiled network may return the same memory at every step (CUDA graphs)
                self._now.output = made.detach().clone()

        return hook

    def _left_out(self) -> int:
        """Sites of the blocks that the pass under way skips."""
        skipped = self._now.tokens.skipped
        return sum(len(block.sites) for block in self.blocks if block.name in skipped)

    def _write_residuals(self) -> None:
        """The three numbers of every residual stream of the pass, from the norms of its channels."""
        every = len(self.blocks) * len(PASS_STREAMS)
        for rows, values in self._channels.reduce():
            for measure, numbers in enumerate(values, 1):
                if numbers.shape[-1] == self._now.rows:
                    self.norms.write([measure * every + slot for slot, _ in rows], numbers)
                    continue
                for (slot, first), number in zip(rows, numbers, strict=True):
                    row = self.norms.row[measure * every + slot]
                    row[first : first + len(number)] = number

    def _site_hook(self, clock: Clock, index: int, block: Block, site: Site) -> Callable[..., None]:
        """The one hook of the hot path: it reduces each stream into its slot."""
        quantity = QUANTITIES.index(site.quantity)
        first = index * len(PASS_STREAMS)
        every = len(self.blocks) * len(PASS_STREAMS)
        names = [f"{block.name}.{site.quantity}.{stream}" for stream in site.streams]
        whole = [name in self._whole for name in names]
        with_map = self.maps is not None and site.streams[0] == "image"

        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if not clock.running:
                return
            self._fired += 1
            if site.split is not None:
                streams = edited_streams(output) or site.split(module, args, kwargs, output)
            else:
                streams = site.read(output, self._image_and_reference)
            read = 0
            if self._once.takes(streams[:2]):
                read = self._read_once(quantity, index, site, streams[:2], with_map=with_map)
            for place, (name, stream) in enumerate(zip(site.streams, streams, strict=False)):
                if whole[place]:
                    self._keep(clock, names[place], stream)
                if place < read:
                    continue
                for kind, begin, part in self._parts(name, stream):
                    slot = first + kind
                    if begin == 0:
                        self._now.counts[quantity * every + slot] = part.shape[1]
                    if quantity == 0:
                        row = self.norms.row[slot]
                        norm_into(row if len(part) == len(row) else row[begin : begin + 1], part)
                    else:
                        self._channels.read(slot, begin, part)
                    if with_map and kind == 0:
                        self._read_map(quantity * len(self.blocks) + index, part)

        return hook

    def _read_once(
        self,
        quantity: int,
        index: int,
        site: Site,
        streams: Sequence[torch.Tensor],
        *,
        with_map: bool,
    ) -> int:
        """Read a site's streams by the kernel; how many it has read."""
        now, named = self._now, [*zip(site.streams, streams, strict=False)]
        fits = with_map and streams[0].shape[1] == self._image_and_reference
        parts = self._once.read(quantity, index, named, now.tokens, now.lengths, with_map=fits)
        first = (quantity * len(self.blocks) + index) * len(PASS_STREAMS)
        for part in parts:
            if part.row == 0:
                now.counts[first + PASS_STREAMS.index(part.kind)] = part.count
        if with_map and not fits:
            self._read_map(quantity * len(self.blocks) + index, streams[0])
        return len(named)

    def _whole_hook(self, clock: Clock, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            if clock.running:
                self._keep(clock, name, output)

        return hook

    def _keep(self, clock: Clock, name: str, tensor: torch.Tensor) -> None:
        self.shapes[name] = tuple(tensor.shape[1:])
        if self.keep is not None:
            self.keep(name, (clock.step, clock.nth), tensor)

    @property
    def _image_and_reference(self) -> int:
        return self._now.tokens.image + self._now.tokens.reference

    def _parts(self, name: str, stream: torch.Tensor) -> list[tuple[int, int, torch.Tensor]]:
        """What a stream of a module is made of: (place in PASS_STREAMS, first row, tensor)."""
        now, found = self._now, []
        for kind, row, tokens in spans(self.family, now.tokens, now.lengths, name, stream.shape[1]):
            part = stream if row is None else stream[row : row + 1]
            part = part if tokens is None else part[:, tokens]
            found.append((PASS_STREAMS.index(kind), row or 0, part))
        return found

    def _read_map(self, slot: int, stream: torch.Tensor) -> None:
        assert self.maps is not None
        row = self.maps.row[slot]
        if stream.shape[1] == row.shape[1]:
            token_norm_into(row, stream)
            return
        # A deeper level of a U-Net: its coarser map is repeated onto the finest grid.
        grid = self._now.tokens.grid
        norms = torch.linalg.vector_norm(stream.detach(), 2, -1, dtype=torch.float32)
        coarse = norms.unflatten(1, _coarse_grid(grid, stream.shape[1]))
        row.copy_(F.interpolate(coarse[:, None], size=grid, mode="nearest").flatten(1))


def _is_nothing(output: Any) -> bool:
    """Whether an adapter returned without running: nothing where its residuals would be."""
    return isinstance(output, tuple) and all(part is None for part in output)


def _coarse_grid(grid: tuple[int, int], tokens: int) -> tuple[int, int]:
    """The (y, x) grid of the U-Net level with that many tokens: a level halves, rounding up."""
    y, x = grid
    while y * x > tokens:
        y, x = -(-y // 2), -(-x // 2)
    return y, x
