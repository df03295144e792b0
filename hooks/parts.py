"""Who watches a pipeline: an observer of its denoiser and, if it has one, of its ControlNet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stepscope.hooks.capture import Capture
from stepscope.hooks.clock import controlnet_of, denoiser_of
from stepscope.hooks.families import Family, blocks_of, family_of
from stepscope.hooks.injections.contributions import Contributions
from stepscope.hooks.injections.declared import declared_of
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.observe import Observer
from stepscope.hooks.sites import Block, select
from stepscope.hooks.texts import Texts


@dataclass(frozen=True)
class Parts:
    """Who watched the call: the observers of the denoiser and of its ControlNet; what adapters add."""

    family: Family
    denoiser: Observer
    adapter: Observer | None
    added: Contributions


def observers(
    pipe: Any,
    capture: Capture,
    texts: Texts,
    keep: Callable[[str, Place, torch.Tensor], None] | None = None,
) -> Parts:
    """Observers for a pipeline's denoiser and, if it has one, its ControlNet; not yet attached.

    keep: is given every tensor that is kept whole.

    Raises StepscopeError if `capture.sites` names a site that the denoiser does not have.
    """
    family = family_of(denoiser_of(pipe))
    blocks = blocks_of(denoiser_of(pipe))
    added = {one.place.name: one.module for one in declared_of(denoiser_of(pipe)) if one.editable}
    whole = select(capture.sites, blocks, [*added])
    denoiser = Observer(
        family,
        blocks,
        massive=capture.massive,
        texts=texts,
        maps=capture.level == "tokens",
        whole=whole,
        keep=keep,
        outputs={name: module for name, module in added.items() if name in whole},
        keep_output=capture.velocity,
    )
    network = controlnet_of(pipe)
    added = Contributions(denoiser_of(pipe), network, denoiser)
    if network is None:
        return Parts(family, denoiser, None, added)
    inside = _attentions_only(blocks_of(network))
    adapter = Observer(family_of(network), inside, texts=texts, may_skip=True)
    return Parts(family, denoiser, adapter, added)


def _attentions_only(blocks: Sequence[Block]) -> list[Block]:
    """The blocks with their attention sites alone: what is read inside an adapter's network."""
    return [
        replace(block, sites=tuple(s for s in block.sites if s.quantity == "attention"))
        for block in blocks
    ]
