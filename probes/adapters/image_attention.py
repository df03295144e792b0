"""The attentions that read an image prompt: their scales, when they are open, and what they are given."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from stepscope.hooks.clock import Listener, denoiser_of, listening
from stepscope.hooks.compiled import before
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.patch import replaced
from stepscope.probes.adapters.image_prompt import NEGATIVE, POSITIVE
from stepscope.probes.adapters.ip_adapter_file import Kind
from stepscope.probes.faces import UNIT, Face

STREAM = "image_prompt"


class Attentions:
    """Those of a denoiser with an IP-Adapter, by the processors that diffusers gave them."""

    def __init__(self, denoiser: nn.Module) -> None:
        found: Any = getattr(denoiser, "attn_processors", {})
        self.processors = [one for one in found.values() if hasattr(one, "to_k_ip")]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restore every scale at the end."""
        before = [list(one.scale) for one in self.processors]
        try:
            yield
        finally:
            self.set(before)

    def scales(self) -> list[list[Any]]:
        return [list(one.scale) for one in self.processors]

    def set(self, scales: Sequence[Sequence[Any]]) -> None:
        for one, scale in zip(self.processors, scales, strict=True):
            one.scale = list(scale)


@contextmanager
def windowed(pipe: Any, attentions: Attentions, inside: Collection[int]) -> Iterator[None]:
    """Open the attentions in some steps of a call, counted from its first, and close them in the others.

    A closed one is not run. diffusers' U-Nets leave out an attention of scale 0, and FLUX is handed no
    tokens.
    """
    opened = attentions.scales()
    closed = [[0.0] * len(scale) for scale in opened]
    denoiser = denoiser_of(pipe)
    flux = isinstance(denoiser, FluxTransformer2DModel)
    with ExitStack() as stack:
        clock = stack.enter_context(listening(pipe, Listener()))

        def gate(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
            active = clock.step in inside and any(map(any, opened))
            attentions.set(opened if active else closed)
            if flux and not active:
                given = dict(kwargs.get("joint_attention_kwargs") or {})
                given.pop("ip_adapter_image_embeds", None)
                kwargs["joint_attention_kwargs"] = given | {"ip_hidden_states": []}
            return args, kwargs

        # after the clock's own hook, before any that records
        handle = before(denoiser, gate, with_kwargs=True, outside=True)
        stack.callback(handle.remove)
        yield


def each_its_own(pipe: Any) -> AbstractContextManager[None]:
    """While it lasts, each row of a batch has the image embeddings that it is given.

    diffusers' `prepare_ip_adapter_image_embeds` gives every row of a batch those of one image, and mixes
    rows where it is handed more.
    """

    def as_given(original: Callable[..., Any], *args: Any, **more: Any) -> list[torch.Tensor]:
        given = inspect.signature(original).bind(*args, **more).arguments
        return list(given["ip_adapter_image_embeds"])

    return replaced(pipe, "prepare_ip_adapter_image_embeds", as_given)


def embeddings(pipe: Any, faces: Sequence[Face], branches: int, kind: Kind) -> dict[str, Any]:
    """The pipeline's image embeddings of a batch, (row, image, ...), with the negative ones that it needs.

    Of a FaceID the faces' own unit-norm embeddings, and zeros for nothing. Raises StepscopeError for
    embeddings of other shapes, and of another width than the adapter reads.
    """
    if kind.face_id:
        made = [face.given.get(UNIT, face.embedding)[None, None] for face in faces]
        nothing = [np.zeros_like(one) for one in made]
    else:
        made = [face.given[POSITIVE] for face in faces]
        nothing = [face.given[NEGATIVE] for face in faces]
    if len({one.shape for one in made}) > 1:
        shapes = ", ".join(str(shape) for shape in sorted({one.shape for one in made}))
        raise StepscopeError(
            f"faces hold embeddings of other shapes: {shapes}; name one form for all"
        )
    if made[0].shape[-1] != kind.embedding:
        raise StepscopeError(
            f"pictures are embedded in {made[0].shape[-1]} numbers, and adapter.path reads "
            f"{kind.embedding}: name the image encoder that it was trained with, adapter.encoder=..."
        )
    if kind.flux:  # whose pipeline asks for the negative ones in any case
        return {
            "ip_adapter_image_embeds": [_rows(pipe, made)],
            "negative_ip_adapter_image_embeds": [_rows(pipe, nothing)],
        }
    return {"ip_adapter_image_embeds": [_rows(pipe, made, nothing if branches == 2 else ())]}


def _rows(
    pipe: Any, made: Sequence[np.ndarray], nothing: Sequence[np.ndarray] = ()
) -> torch.Tensor:
    """Rows on the denoiser's device and in its dtype, those of the negative pass first."""
    like: Any = denoiser_of(pipe)
    return torch.from_numpy(np.stack([*nothing, *made])).to(like.device, like.dtype)


def pictures_of(pipe: Any, faces: Sequence[Face], branches: int, kind: Kind) -> torch.Tensor:
    """CLIP's hidden states of a batch's faces, which a FaceID Plus reads: (row, image, token, channel).

    Raises StepscopeError for hidden states of other shapes, and of another width than the adapter reads.
    """
    made = [face.given[POSITIVE] for face in faces]
    if {one.shape for one in made} != {made[0].shape} or made[0].shape[-1] != kind.picture:
        shapes = ", ".join(str(shape) for shape in sorted({one.shape for one in made}))
        raise StepscopeError(
            f"hidden states of faces are {shapes}, and adapter.path reads (1, token, {kind.picture}) of "
            "each: name the CLIP that it was trained with, adapter.clip=..."
        )
    nothing = [face.given[NEGATIVE] for face in faces] if branches == 2 else []
    return _rows(pipe, made, nothing)


class _Planned:
    """Stands for the processor of one IP-Adapter in a denoiser without weights."""

    to_k_ip, scale = (None,), (1.0,)


@contextmanager
def attentions_on_skeleton(denoiser: nn.Module) -> Iterator[None]:
    """While it lasts, every attention of a denoiser without weights that may hold an IP-Adapter has one."""
    before = []
    for block in blocks_of(denoiser):
        for site in block.sites:
            if STREAM in site.streams:
                module: Any = site.module
                before.append((module, module.processor))
                module.processor = _Planned()
    try:
        yield
    finally:
        for module, processor in before:
            module.processor = processor
