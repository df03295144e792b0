"""Plain hooks that see, apart from the recorder's, what switching an adapter off changes at its places.

In float64, in the passes of the first step. The outputs of a block and the next one's input differ by a
ControlNet's residual, and by what a declared adapter adds between them; an attention and a layer are run
again, without the adapter alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.families import blocks_of, family_of
from stepscope.hooks.injections.declared import declared_of
from stepscope.hooks.injections.image_prompt import attentions_of, run_again
from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.injections.lora import Layers, in_layers
from stepscope.hooks.injections.residuals import CONTROLNET, between_blocks, on_skips

Handles = Iterator[RemovableHandle]


class InjectionCheck:
    """What adapters add in the first step, over what they add it to: pass and place -> (row of the batch,).

    A declared place is among it where FLUX's image tokens are added to between blocks, if nothing
    else that is declared adds there.
    """

    def __init__(self, denoiser: nn.Module, network: nn.Module | None) -> None:
        self.denoiser, self.network = denoiser, network
        self._squares: dict[tuple[int, Injection], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self._pass, self._ended, self._text = -1, False, 0

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
        self._ended = self._pass >= 0

    def attach(self) -> list[RemovableHandle]:
        """Lay the hooks; the caller removes the handles."""
        first = self.denoiser.register_forward_pre_hook(self._open, with_kwargs=True)
        found = (
            self._residuals(),
            self._skips(),
            self._attentions(),
            self._layers(),
            self._between(),
        )
        return [first, *(handle for handles in found for handle in handles)]

    def _open(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._pass += 1
        self._text = family_of(self.denoiser).tokens(args, kwargs).context

    def _keep(self, place: Injection, on: Tensor, off: Tensor, base: Tensor | None = None) -> None:
        """Values of a place with the adapter and without; base: what it is added to, if not `off`."""
        base = off if base is None else base
        added = (on.double() - off.double()).flatten(1)
        squares = added.square().sum(1), base.double().flatten(1).square().sum(1)
        self._squares[self._pass, place].append(squares)

    def _after(
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
                self._keep(Injection(CONTROLNET, name, "image"), image, output)
            before.clear()

        for block in blocks_of(model):
            yield self._before(block.module, close, first=True)
            name = block.name
            yield self._after(
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
            self._keep(place, on, off)

        (made, with_hooks), (given, read) = _difference(keep), _difference(keep)
        yield self._after(block, lambda m, a, k, output: made(output[1]), first=True)
        yield self._after(block, lambda m, a, k, output: with_hooks(output[1]))
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
                self._keep(place, on, off)
            handed.clear()
            read.clear()

        for module in (model.conv_in, *model.down_blocks, model.mid_block):
            yield self._after(module, down)
        for module in model.up_blocks:
            yield self._before(module, up)
        yield self._after(model, end)

    def _attentions(self) -> Handles:
        """An attention with an IP-Adapter, run again with each adapter's scale at 0."""
        for kind in (UNet2DConditionModel, FluxTransformer2DModel):
            modules = {block.name: block.module for block in blocks_of(self.denoiser)}
            for name, attention in attentions_of(self.denoiser, kind).items():
                prompt: list[tuple[Injection, Tensor, Tensor]] = []

                def see(module: Any, args: Any, kwargs: Any, output: Any, name=name, prompt=prompt):
                    nothing = run_again(module, args, kwargs, lambda n: False)
                    for i in range(len(module.processor.to_k_ip)):
                        place = Injection(f"ip_adapter:{i}", name, "image")
                        off = run_again(module, args, kwargs, lambda n, i=i: n != i)
                        if isinstance(output, tuple):
                            prompt.append((place, output[2], off[2]))
                        else:
                            self._keep(place, output, off, nothing)

                def added(module: Any, args: Any, kwargs: Any, output: Any, prompt=prompt):
                    for place, on, off in prompt:
                        self._keep(place, on, off, output[1].double() - on.double())
                    prompt.clear()

                yield self._after(attention, see)
                if kind is FluxTransformer2DModel:
                    yield self._after(modules[name], added)

    def _layers(self) -> Handles:
        """A layer with LoRAs, run again with each scaling at 0."""
        found = in_layers(self.denoiser, None)
        if found is None:
            return
        met: set[tuple[int, str]] = set()
        for path, layer in found.layers.items():

            def see(module: Any, args: Any, kwargs: Any, output: Tensor, path=path) -> None:
                # an attention with an image prompt is run again, and its layers with it
                if (self._pass, path) in met:
                    return
                met.add((self._pass, path))
                base = _scaled(module, args, kwargs, lambda name: False)
                for name in module.lora_B:
                    off = _scaled(module, args, kwargs, lambda n, name=name: n != name)
                    for place, tokens in self._tokens(found, path, name, output):
                        self._keep(place, output[tokens], off[tokens], base[tokens])

            yield self._after(layer, see)

    def _tokens(
        self, found: Layers, path: str, name: str, output: Tensor
    ) -> Iterator[tuple[Injection, Any]]:
        places = found.places(path, name)
        whole = (slice(None),)
        for place in places:
            text = slice(None, self._text) if place.stream == "text" else slice(self._text, None)
            if len(places) == 1 or output.ndim == 2:
                if len(places) == 1 or place.stream == "image":
                    yield place, whole
            else:
                yield place, (slice(None), text)


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


def _scaled(layer: Any, args: Any, kwargs: Any, keep: Callable[[str], bool]) -> Tensor:
    """A layer's output with some of its LoRAs alone."""
    scaling = layer.scaling
    layer.scaling = {name: s if keep(name) else 0.0 for name, s in scaling.items()}
    try:
        return layer.forward(*args, **kwargs)
    finally:
        layer.scaling = scaling
