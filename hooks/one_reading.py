"""Norms of all streams of a site from one reading of their values, where the kernel runs.

What stands in each place is what `norm_into`, `token_norm_into` and `Channels` put there, up to the order
of float32 sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from stepscope.hooks import kernel
from stepscope.hooks.families import Family, Tokens
from stepscope.hooks.kernel import GROUP, Group
from stepscope.hooks.massive import of_channels
from stepscope.hooks.norm_buffer import NormBuffer
from stepscope.hooks.streams import spans


@dataclass(frozen=True)
class Part:
    """Tokens of one kind in `rows` rows of the batch from `row` on.

    kind: the name of the stream. first: of its groups. each: how many of them a row has. count: its tokens.
    """

    kind: str
    row: int
    rows: int
    first: int
    each: int
    count: int


@dataclass
class Plan:
    """How sites with streams of one shape are summed. sums: (block, group, channel or block of channels).

    tokens: sums of each token of the image, (block, row, token, block of channels); None where no map is
    made. seen: the blocks that were read in the pass under way.
    """

    parts: Sequence[Part]
    groups: torch.Tensor
    sums: torch.Tensor
    tokens: torch.Tensor | None
    seen: list[int] = field(default_factory=list)


Key = tuple[int, bool, Tokens, tuple[int, ...] | None, tuple[tuple[str, torch.Size], ...]]


class OneReading:
    """The sites that a pass has read, until it ends.

    blocks: how many. massive: channels to leave out, as `Channels`. kinds: the names of streams, in the
        order of their slots.
    """

    def __init__(self, family: Family, blocks: int, massive: int, kinds: Sequence[str]) -> None:
        self._family, self._blocks, self._massive = family, blocks, massive
        self._kinds = list(kinds)
        self._plans: dict[Key, Plan] = {}

    def reset(self) -> None:
        """A call begins. Buffers are of its prompts' lengths: another call may need others."""
        self._plans.clear()

    def begin(self) -> None:
        """A pass begins: nothing of it has been read."""
        for plan in self._plans.values():
            plan.seen.clear()

    def takes(self, streams: Sequence[torch.Tensor]) -> bool:
        """Whether the kernel can read these, (row of the batch, token, channel) each."""
        like = streams[0]
        return kernel.usable(like.device) and all(
            one.ndim == 3
            and one.stride(2) == 1
            and one.dtype == like.dtype
            and (one.shape[0], one.shape[2]) == (like.shape[0], like.shape[2])
            for one in streams
        )

    def read(
        self,
        quantity: int,
        block: int,
        named: Sequence[tuple[str, torch.Tensor]],
        tokens: Tokens,
        lengths: tuple[int, ...] | None,
        *,
        with_map: bool,
    ) -> Sequence[Part]:
        """Sum one or two streams of a site; what they are made of.

        quantity: 0, the norm of which is needed alone, or 1, of which every channel's is. with_map: of the
        image tokens of the first stream too.
        """
        shapes = tuple((name, stream.shape) for name, stream in named)
        key = quantity, with_map, tokens, lengths, shapes
        plan = self._plans.get(key)
        if plan is None or plan.sums.device != named[0][1].device:
            plan = self._plans[key] = self._plan(key, named)
        plan.seen.append(block)
        sums = plan.sums[block]
        kernel.squares(
            [stream for _, stream in named],
            plan.groups,
            of_channels=sums if quantity else None,
            of_groups=None if quantity else sums,
            of_tokens=None if plan.tokens is None else plan.tokens[block],
        )
        return plan.parts

    def _plan(self, key: Key, named: Sequence[tuple[str, torch.Tensor]]) -> Plan:
        quantity, with_map, tokens, lengths, _ = key
        parts: list[Part] = []
        groups: list[Group] = []
        for which, (name, stream) in enumerate(named):
            size = stream.shape[1]
            for span in spans(self._family, tokens, lengths, name, size):
                first, end, _ = (span.tokens or slice(None)).indices(size)
                rows = range(len(stream)) if span.row is None else [span.row]
                each = -(-(end - first) // GROUP)
                at = len(groups)
                parts.append(Part(span.stream, rows[0], len(rows), at, each, end - first))
                groups += [
                    Group(which, row, begin, min(GROUP, end - begin))
                    for row in rows
                    for begin in range(first, end, GROUP)
                ]
        like = named[0][1]
        wide = -(-like.shape[2] // kernel.width(like.shape[2]))
        inner = (like.shape[2],) if quantity else (wide,)
        with torch.inference_mode(False):
            return Plan(
                [part for part in parts if part.count],
                torch.tensor(groups, dtype=torch.int32).reshape(-1, 4).to(like.device),
                torch.empty(
                    (self._blocks, len(groups), *inner), dtype=torch.float32, device=like.device
                ),
                torch.empty(
                    (self._blocks, len(like), tokens.image, wide),
                    dtype=torch.float32,
                    device=like.device,
                )
                if with_map
                else None,
            )

    def write(self, norms: NormBuffer, maps: NormBuffer | None) -> None:
        """Put the numbers of the sites that were read in their slots (measure, block, stream)."""
        for (quantity, *_), plan in self._plans.items():
            if not plan.seen:
                continue
            blocks = _together(sorted(plan.seen))
            plan.seen.clear()
            if plan.tokens is not None:
                assert maps is not None
                of_maps = maps.now.unflatten(0, (-1, self._blocks))
                of_maps[quantity, blocks] = plan.tokens[blocks].sum(-1).sqrt()
            slots = norms.now.unflatten(0, (-1, self._blocks, len(self._kinds)))
            for part in plan.parts:
                sums = plan.sums[blocks, part.first : part.first + part.rows * part.each]
                sums = sums.unflatten(1, (part.rows, part.each)).sum(2)
                into = slots[:, :, self._kinds.index(part.kind), part.row : part.row + part.rows]
                if quantity == 0:
                    into[0, blocks] = sums.sum(-1).sqrt()
                else:
                    into[1:, blocks] = of_channels(sums, self._massive)


def _together(blocks: list[int]) -> slice | list[int]:
    """The same as a slice if they follow each other: a list would be copied to the device."""
    if blocks[-1] - blocks[0] == len(blocks) - 1:
        return slice(blocks[0], blocks[-1] + 1)
    return blocks
