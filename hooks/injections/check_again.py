"""What switching an adapter off changes where a module can be run again without it.

An attention with an IP-Adapter, and a layer with LoRAs.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stepscope.hooks.families import blocks_of
from stepscope.hooks.injections.image_prompt import attentions_of, run_again
from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.injections.lora import Layers, in_layers


@runtime_checkable
class Check(Protocol):
    """What keeps the values that are seen. nth: the pass under way. text: its tokens of text."""

    denoiser: nn.Module
    nth: int
    text: int

    def keep(
        self, place: Injection, on: Tensor, off: Tensor, base: Tensor | None = None
    ) -> None: ...

    def after(
        self, module: nn.Module, see: Callable[..., None], *, first: bool = False
    ) -> RemovableHandle: ...


def attentions(check: Check) -> Iterator[RemovableHandle]:
    """An attention with an IP-Adapter, run again with each adapter's scale at 0."""
    for kind in (UNet2DConditionModel, FluxTransformer2DModel):
        modules = {block.name: block.module for block in blocks_of(check.denoiser)}
        for name, attention in attentions_of(check.denoiser, kind).items():
            prompt: list[tuple[Injection, Tensor, Tensor]] = []

            def see(module: Any, args: Any, kwargs: Any, output: Any, name=name, prompt=prompt):
                nothing = run_again(module, args, kwargs, lambda n: False)
                for i in range(len(module.processor.to_k_ip)):
                    place = Injection(f"ip_adapter:{i}", name, "image")
                    off = run_again(module, args, kwargs, lambda n, i=i: n != i)
                    if isinstance(output, tuple):
                        prompt.append((place, output[2], off[2]))
                    else:
                        check.keep(place, output, off, nothing)

            def added(module: Any, args: Any, kwargs: Any, output: Any, prompt=prompt):
                for place, on, off in prompt:
                    check.keep(place, on, off, output[1].double() - on.double())
                prompt.clear()

            yield check.after(attention, see)
            if kind is FluxTransformer2DModel:
                yield check.after(modules[name], added)


def layers(check: Check) -> Iterator[RemovableHandle]:
    """A layer with LoRAs, run again with each scaling at 0."""
    found = in_layers(check.denoiser, None)
    if found is None:
        return
    met: set[tuple[int, str]] = set()
    for path, layer in found.layers.items():

        def see(module: Any, args: Any, kwargs: Any, output: Tensor, path=path) -> None:
            # an attention with an image prompt is run again, and its layers with it
            if (check.nth, path) in met:
                return
            met.add((check.nth, path))
            base = _scaled(module, args, kwargs, lambda name: False)
            for name in module.lora_B:
                off = _scaled(module, args, kwargs, lambda n, name=name: n != name)
                for place, tokens in _tokens(check, found, path, name, output):
                    check.keep(place, output[tokens], off[tokens], base[tokens])

        yield check.after(layer, see)


def _tokens(
    check: Check, found: Layers, path: str, name: str, output: Tensor
) -> Iterator[tuple[Injection, Any]]:
    places = found.places(path, name)
    whole = (slice(None),)
    for place in places:
        text = slice(None, check.text) if place.stream == "text" else slice(check.text, None)
        if len(places) == 1 or output.ndim == 2:
            if len(places) == 1 or place.stream == "image":
                yield place, whole
        else:
            yield place, (slice(None), text)


def _scaled(layer: Any, args: Any, kwargs: Any, keep: Callable[[str], bool]) -> Tensor:
    """A layer's output with some of its LoRAs alone."""
    scaling = layer.scaling
    layer.scaling = {name: s if keep(name) else 0.0 for name, s in scaling.items()}
    try:
        return layer.forward(*args, **kwargs)
    finally:
        layer.scaling = scaling
