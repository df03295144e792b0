"""Forward hooks on a network's sites, and the tapes they write to."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from hooks.clock import Clock
from hooks.errors import UnsupportedPipelineError
from hooks.sites import Block, Site
from hooks.tape import Tape, norm_into, token_norm_into

QUANTITIES = ("attention", "residual")
PASS_STREAMS = (
    "image",
    "text",
)  # a block's two streams; inside an adapter the second may be a face


class Observer:
    """Reads the sites of a network's blocks while a clock runs.

    blocks: the blocks and, of each, the sites to read.
    maps: keep a norm for each image token besides one for each stream.
    whole: names of sites whose tensors are kept as they are.
    keep_output: keep the network's own output.
    may_skip: the network may return without running its blocks (an adapter outside its window).

    norms: tape with slots (quantity, block, stream). maps: tape with slots (quantity, block).
    whole: site name -> {(branch, step): tensor on the host}. outputs: {(branch, step): tensor}.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        maps: bool = False,
        whole: Sequence[str] = (),
        keep_output: bool = False,
        may_skip: bool = False,
    ) -> None:
        self.blocks = list(blocks)
        self.norms = Tape(len(QUANTITIES) * len(blocks) * len(PASS_STREAMS))
        self.maps = Tape(len(QUANTITIES) * len(blocks)) if maps else None
        self.whole: dict[str, dict[tuple[int, int], torch.Tensor]] = {name: {} for name in whole}
        self.outputs: dict[tuple[int, int], torch.Tensor] = {}
        self.grid: tuple[int, int] | None = None
        self.image_ids: torch.Tensor | None = None
        self.image_tokens = 0
        self._keep_output, self._may_skip = keep_output, may_skip
        self._sites = sum(len(block.sites) for block in blocks)
        self._fired = 0

    def rewind(self) -> None:
        """Start a pipeline call: nothing has been seen."""
        self.norms.rewind()
        if self.maps is not None:
            self.maps.rewind()
        self.whole = {name: {} for name in self.whole}
        self.outputs = {}

    def attach(self, clock: Clock, network: nn.Module) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        handles = [
            network.register_forward_pre_hook(self._before(clock), with_kwargs=True),
            network.register_forward_hook(self._after(clock)),
        ]
        for index, block in enumerate(self.blocks):
            for site in block.sites:
                hook = self._site_hook(clock, index, block, site)
                handles.append(site.module.register_forward_hook(hook))
        return handles

    def _before(self, clock: Clock) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if not clock.running:
                return
            # A U-Net gets its latents by position, a FLUX transformer by name.
            latents: torch.Tensor = args[0] if args else kwargs["hidden_states"]
            packed = latents.ndim == 3  # FLUX: (batch, token, channel); a U-Net has y and x
            self.grid = None if packed else (latents.shape[2], latents.shape[3])
            # Counted here, not the text: an adapter may put other tokens in the text's place.
            self.image_tokens = latents.shape[1] if packed else math.prod(latents.shape[2:])
            self.image_ids = kwargs.get("img_ids")
            # A ControlNet runs before the step's first pass, when the branch is not yet begun.
            where = max(clock.branch, 0), clock.step
            batch = latents.shape[0]
            self.norms.turn(*where, (batch,), clock.steps, latents.device)
            if self.maps is not None:
                self.maps.turn(*where, (batch, self.image_tokens), clock.steps, latents.device)
            self._fired = 0

        return hook

    def _after(self, clock: Clock) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not clock.running:
                return
            skipped = self._may_skip and self._fired == 0 and _is_nothing(output)
            if self._fired != self._sites and not skipped:
                raise UnsupportedPipelineError(
                    f"{self._fired} of {self._sites} hooks in {type(module).__name__} fired in step "
                    f"{clock.step}: its blocks were compiled or replaced after recording began"
                )
            if self._keep_output:
                first = output[0] if isinstance(output, tuple) else output.sample
                self.outputs[clock.branch, clock.step] = first

        return hook

    def _site_hook(self, clock: Clock, index: int, block: Block, site: Site) -> Callable[..., None]:
        """The one hook of the hot path: it reduces each stream into its slot."""
        quantity = QUANTITIES.index(site.quantity) * len(self.blocks) + index
        slots = [quantity * len(PASS_STREAMS) + PASS_STREAMS.index(s) for s in site.streams]
        names = [f"{block.name}.{site.quantity}.{s}" for s in site.streams]
        whole = [(i, name) for i, name in enumerate(names) if name in self.whole]
        with_map = self.maps is not None and site.streams[0] == "image"
        read, tape, tokens, more = site.read, self.norms, self.norms.tokens, with_map or whole

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not clock.running:
                return
            self._fired += 1
            streams, row = read(output, self.image_tokens), tape.row
            for slot, stream in zip(slots, streams, strict=True):
                norm_into(row[slot], stream)
                tokens[slot] = stream.shape[1]
            if not more:
                return
            if with_map:
                self._read_map(quantity, streams[0])
            for i, name in whole:
                self.whole[name][clock.branch, clock.step] = _to_host(streams[i])

        return hook

    def _read_map(self, slot: int, stream: torch.Tensor) -> None:
        assert self.maps is not None
        row = self.maps.row[slot]
        if stream.shape[1] == row.shape[1]:
            token_norm_into(row, stream)
            return
        # A deeper level of a U-Net: its coarser map is repeated onto the finest grid.
        assert self.grid is not None
        norms = torch.linalg.vector_norm(stream.detach(), 2, -1, dtype=torch.float32)
        coarse = norms.unflatten(1, _coarse_grid(self.grid, stream.shape[1]))
        row.copy_(F.interpolate(coarse[:, None], size=self.grid, mode="nearest").flatten(1))


def _is_nothing(output: Any) -> bool:
    """Whether an adapter returned without running: nothing where its residuals would be."""
    return isinstance(output, tuple) and all(part is None for part in output)


def _coarse_grid(grid: tuple[int, int], tokens: int) -> tuple[int, int]:
    """The (y, x) grid of the U-Net level with that many tokens: a level halves, rounding up."""
    y, x = grid
    while y * x > tokens:
        y, x = -(-y // 2), -(-x // 2)
    return y, x


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the host in the tensor's own dtype; from a GPU without waiting for it."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return host.copy_(tensor.detach(), non_blocking=True)
