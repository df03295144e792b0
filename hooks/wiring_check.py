"""Plain hooks that measure a denoiser's raw tensors in float64, independently of the recorder's.

It never keeps more than one block's tensors, so it can watch full-size models.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.families import Tokens, blocks_of, family_of
from stepscope.hooks.families.family import AddedTo
from stepscope.hooks.injections.declared import Declared, declared_of
from stepscope.hooks.sites import Block, Site

Norms = dict[tuple[int, str, int, str], torch.Tensor]
"""(pass, measure, block, stream) -> a number for each row of the batch."""


class WiringCheck:
    """Watches a denoiser: the norms of its first step's passes, and which attentions computed anything.

    masks: which tokens of the text are real, of each row of a pass; by the tokenizer's own mask.
    massive: number of largest channels left out. norms: root mean squares over tokens, and shares.
    idle: attentions that handed on a value without computing one, with how often.
    """

    def __init__(
        self,
        network: nn.Module,
        masks: Callable[[int, int], Sequence[torch.Tensor] | None],
        massive: int,
    ) -> None:
        self.network, self.family = network, family_of(network)
        self.blocks = blocks_of(network)
        self.wiring = self.family.wiring(network, self.blocks) if self.family.wiring else None
        self.norms: Norms = {}
        self.idle: dict[str, int] = {}
        self._masks, self._massive = masks, massive
        self._pass = -1
        self._now = Tokens(0, 0, (0, 0), 0)

    def begin_step(self) -> None:
        """The passes of one step have been seen; those of later ones are not measured."""
        self._pass = 1000 if self._pass >= 0 else self._pass

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        handles = [self.network.register_forward_pre_hook(self._open, with_kwargs=True)]
        for index, block in enumerate(self.blocks):
            for site in block.sites:
                hook = self._measure(index, site)
                handles.append(site.hooked(hook))
                if site.quantity == "attention":
                    handles += self._computed(block, site)
        handles += self.wiring.attach() if self.wiring is not None else []
        return handles + [self._added(one) for one in declared_of(self.network)]

    def _added(self, one: Declared) -> RemovableHandle:
        def tell(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            added = one.added(args, kwargs, output)
            if isinstance(self.wiring, AddedTo) and one.stream == "image" and added is not None:
                self.wiring.add(added)

        return one.module.register_forward_hook(tell, with_kwargs=True)

    def _open(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._pass += 1
        self._now = self.family.tokens(args, kwargs)

    def _measure(self, index: int, site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if self._pass >= 1000:
                return
            if site.split is not None:
                streams = site.split(module, args, kwargs, output)
            else:
                streams = site.read(output, self._now.image + self._now.reference)
            for name, whole in zip(site.streams, streams, strict=False):
                for stream, rows in self._parts(name, whole.double()):
                    self._keep(site.quantity, index, stream, rows)

        return hook

    def _keep(self, quantity: str, block: int, stream: str, rows: list[torch.Tensor]) -> None:
        where = self._pass, block, stream
        norms = torch.stack([row.square().sum(-1).mean().sqrt() for row in rows]).cpu()
        self.norms[where[0], f"{quantity}_norm", block, stream] = norms
        if quantity == "residual":
            energies = [row.square().sum(0) for row in rows]
            top = [e.topk(min(self._massive, len(e))).values.sum() for e in energies]
            shares = torch.stack([t / e.sum() for t, e in zip(top, energies, strict=True)]).cpu()
            self.norms[where[0], "massive_share", block, stream] = shares
            rest = norms * (1 - shares).sqrt()
            self.norms[where[0], "residual_norm_without_massive", block, stream] = rest

    def _parts(self, name: str, whole: torch.Tensor) -> list[tuple[str, list[torch.Tensor]]]:
        """What a stream of a module is made of, each row (token, channel) for itself."""
        rows = list(whole)
        if name == "image" and self._now.reference:
            image = self._now.image
            return [("image", [r[:image] for r in rows]), ("reference", [r[image:] for r in rows])]
        if name != "text" or not self.family.pads:
            return [(name, rows)]
        masks = self._real(len(rows), whole.shape[1])
        if masks is None:
            return []
        text = [row[mask] for row, mask in zip(rows, masks, strict=True)]
        padding = [row[~mask] for row, mask in zip(rows, masks, strict=True)]
        return [("text", text), *([("padding", padding)] if all(map(len, padding)) else [])]

    def _real(self, rows: int, count: int) -> Sequence[torch.Tensor] | None:
        """Which tokens of the text are real, (token,) bool of each row; None if they are not known."""
        if self._now.lengths is None:
            masks = self._masks(self._pass, rows)
            return masks and [mask[:count] for mask in masks]  # an encoder may have cut the text
        return [torch.arange(count) < length for length in self._now.lengths]

    def _computed(self, block: Block, site: Site) -> list[RemovableHandle]:
        """Whether any layer inside an attention ran before it returned."""
        ran: list[bool] = []
        module = block.module if site.given else site.module
        layers = [m for m in module.modules() if isinstance(m, nn.Linear)]

        def layer(_: nn.Module, args: Any, output: Any) -> None:
            ran[:] = [True]

        def after(_: nn.Module, args: Any, output: Any) -> None:
            if layers and not ran:
                name = f"{block.name}.{'/'.join(site.streams)}"
                self.idle[name] = self.idle.get(name, 0) + 1
            ran.clear()

        hooks = [m.register_forward_hook(layer) for m in layers]
        return [*hooks, module.register_forward_hook(after)]
