"""Plain hooks that see, apart from the recorder's, what switching an adapter off changes at its places.

In float64, in the passes of the first step. The outputs of a block and the next one's input differ by a
ControlNet's residual, and by what a declared adapter adds between them; `check_again` runs attentions and
layers again, without the adapter alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.families import blocks_of, family_of
from stepscope.hooks.injections.check_again import attentions, layers
from stepscope.hooks.injections.declared import declared_of
from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.injections.residuals import CONTROLNET, between_blocks, on_skips

Handles = Iterator[RemovableHandle]


class InjectionCheck:
    """What adapters add in the first step, over what they add it to: pass and place -> (row of the batch,).

    A declared place is among it where FLUX's image tokens are added to between blocks, if nothing
    else that is declared adds there. nth: the pass under way. text: its tokens of text.
    """

    def __init__(self, denoiser: nn.Module, network: nn.Module | None) -> None:
        self.denoiser, self.network = denoiser, network
        self._squares: dict[tuple[int, Injection], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self.nth, self.text, self._ended = -1, 0, False

    @property
    def ratios(self) -> dict[tuple[int, Injection], Tensor]:
        """Over all layers of a place together."""
        return {
            key: (sum(a for a, _ in parts) / sum(b for _, b in parts)).sqrt().cpu()  # type: ignore[union-attr]
            for key, parts in self._squares.items()
        }

    @property
    def declared(self) -> set[str]:
        """Names of the places that an adapter declares for itself."""
        return {one.place.name for one in declared_of(self.denoiser)}

    def begin_step(self) -> None:
        """The passes of the first step have been seen."""
        self._ended = self.nth >= 0

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        first = self.denoiser.register_forward_pre_hook(self._open, with_kwargs=True)
        found = (
            self._residuals(),
            self._skips(),
            attentions(self),
            layers(self),
            self._between(),
        )
        return [first, *(handle for handles in found for handle in handles)]

    def _open(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self.nth += 1
        self.text = family_of(self.denoiser).tokens(args, kwargs).context

    def keep(self, place: Injection, on: Tensor, off: Tensor, base: Tensor | None = None) -> None:
        """Values of a place with the adapter and without; base: what it is added to, if not `off`."""
        base = off if base is None else base
        added = (on.double() - off.double()).flatten(1)
        squares = added.square().sum(1), base.double().flatten(1).square().sum(1)
        self._squares[self.nth, place].append(squares)

    def after(
        self, module: nn.Module, see: Callable[..., None], *, first: bool = False
    ) -> RemovableHandle:
        """first: before the hooks that are there, which may change the output."""

        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            if not self._ended:
                see(module, args, kwargs, output)

        return module.register_forward_hook(hook, with_kwargs=True, prepend=first)

    def _before(
        self, module: nn.Module, see: Callable[..., None], *, first: bool = False
    ) -> RemovableHandle:
        """first: before the hooks that are there, which may change the input."""

        def hook(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if not self._ended:
                see(args, kwargs)

        return module.register_forward_pre_hook(hook, with_kwargs=True, prepend=first)

    def _residuals(self) -> Handles:
        """Between FLUX's blocks."""
        if between_blocks(self.denoiser, self.network) is None:
            return
        model: Any = self.denoiser
        before: dict[str, Tensor] = {}

        def close(args: Any, kwargs: dict[str, Any]) -> None:
            image = _image(args, kwargs)
            for name, output in before.items():
                self.keep(Injection(CONTROLNET, name, "image"), image, output)
            before.clear()

        for block in blocks_of(model):
            yield self._before(block.module, close, first=True)
            name = block.name
            yield self.after(
                block.module, lambda m, a, k, output, name=name: before.update({name: output[1]})
            )
        yield self._before(model.norm_out, close, first=True)

    def _between(self) -> Handles:
        """Before and after the hooks on a FLUX block's output, and those on the next module's input."""
        model: Any = self.denoiser
        if not family_of(model).adds_residuals:
            return
        blocks = blocks_of(model)
        following = [*(block.module for block in blocks[1:]), model.norm_out]
        found = [one.place for one in declared_of(model) if one.stream == "image"]
        here = Counter(place.block for place in found)
        for block, module in zip(blocks, following, strict=True):
            for place in (p for p in found if p.block == block.name and here[p.block] == 1):
                yield from self._changed(place, block.module, module)

    def _changed(self, place: Injection, block: nn.Module, following: nn.Module) -> Handles:
        def keep(on: Tensor, off: Tensor) -> None:
            self.keep(place, on, off)

        (made, with_hooks), (given, read) = _difference(keep), _difference(keep)
        yield self.after(block, lambda m, a, k, output: made(output[1]), first=True)
        yield self.after(block, lambda m, a, k, output: with_hooks(output[1]))
        yield self._before(following, lambda a, k: given(_image(a, k)), first=True)
        yield self._before(following, lambda a, k: read(_image(a, k)))

    def _skips(self) -> Handles:
        """What a U-Net's upward half reads, and what the downward half handed up."""
        source = on_skips(self.denoiser, self.network)
        if source is None:
            return
        model: Any = self.denoiser
        handed: list[Tensor] = []
        read: list[Tensor] = []

        def down(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            handed.extend(output[1] if isinstance(output, tuple) else [output])

        def up(args: Any, kwargs: dict[str, Any]) -> None:
            if not read:
                read.append(kwargs["hidden_states"])
            read.extend(reversed(kwargs["res_hidden_states_tuple"]))

        def end(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
            middle, *skips = read
            values = [*reversed(skips), middle]
            for place, on, off in zip(source.injections, values, handed, strict=True):
                self.keep(place, on, off)
            handed.clear()
            read.clear()

        for module in (model.conv_in, *model.down_blocks, model.mid_block):
            yield self.after(module, down)
        for module in model.up_blocks:
            yield self._before(module, up)
        yield self.after(model, end)


def _image(args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Of what a FLUX block or the last normalisation is called with, the image tokens."""
    return args[0] if args else kwargs["hidden_states"]


def _difference(keep: Callable[[Tensor, Tensor], None]) -> tuple[Callable[..., None], ...]:
    """To be shown a stream before some hooks, and after them; kept where they changed it."""
    held: list[Tensor] = []

    def before(stream: Tensor) -> None:
        held[:] = [stream.clone()]  # a hook may add in place

    def after(stream: Tensor) -> None:
        off = held.pop()
        if not torch.equal(stream, off):
            keep(stream, off)

    return before, after
