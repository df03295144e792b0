"""PuLID in a FLUX transformer: what its cross-attentions add to the image tokens between blocks.

Follows the published code (github.com/ToTheBeginning/PuLID at 1aa2fc7, flux/model.py, flux/sampling.py):
after double blocks 0, 2, 4, ... and single blocks 0, 4, 8, ...

    image += id_weight * pulid_ca[k](id, image)

with k counting on through both. It is added where the next block begins: the block's output stays what the
block made, and a ControlNet's residual is added before.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from diffusers import FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from stepscope.hooks.clock import Clock, Listener, denoiser_of, listening
from stepscope.hooks.compiled import before
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.families import blocks_of
from stepscope.hooks.injections import Declared, declare, returned
from stepscope.hooks.patch import of_this
from stepscope.hooks.sites import Block
from stepscope.probes.adapters.pulid_network import Pulid, check_fits
from stepscope.probes.adapters.pulid_sizes import DOUBLE_INTERVAL, SINGLE_INTERVAL

NAME = "pulid"
"""The adapter's name along the axis `injection`."""


class Added(nn.Module):
    """What one place adds: a cross-attention's output times the scale."""

    def __init__(self, attention: nn.Module, scale: float) -> None:
        super().__init__()
        self.attention, self.scale = attention, scale

    def forward(
        self, image: Float[Tensor, "row token channel"], identity: Float[Tensor, "#row query width"]
    ) -> Float[Tensor, "row token channel"]:
        like = next(self.attention.parameters())
        rows = identity.expand(len(image), -1, -1)
        return self.scale * self.attention(rows.to(like), image.to(like)).to(image)


@contextmanager
def injected(
    pipe: Any, network: Pulid, *, scale: float = 1.0, steps: Collection[int] | None = None
) -> Iterator[None]:
    """Add the network's `identity` to each call of a pipeline, for as long as the `with` lasts.

    scale: the published `id_weight`. steps: those of the call in which it is added, from 0; None for all.
    The published `start_step` is `range(start_step, n)`. At scale 0, and in any other step, nothing is run.
    With true CFG the negative pass is given the network's `unconditional`.

    Raises WeightsError for a network of another backbone, and in a call StepscopeError where tokens that it
    needs are not set, or are of other rows than the batch.
    """
    model = denoiser_of(pipe)
    if not isinstance(model, FluxTransformer2DModel):
        raise StepscopeError(
            f"PuLID for FLUX adds to FluxTransformer2DModel, and the pipeline has {type(model).__name__}"
        )
    places = places_of(model)
    config: Any = model.config
    check_fits(
        network.sizes,
        "PuLID",
        doubles=config.num_layers,
        singles=config.num_single_layers,
        width=config.num_attention_heads * config.attention_head_dim,
    )
    modules = [Added(attention, scale) for attention in network.pulid_ca]
    with ExitStack() as stack:
        clock = stack.enter_context(listening(pipe, Listener()))
        stack.enter_context(declared(model, modules))
        for (_, following), module in zip(places, modules, strict=True):
            hook = of_this(following, _adding(clock, network, module, steps))
            handle = before(following, hook, with_kwargs=True, outside=True)
            stack.callback(handle.remove)
        yield


def declared(
    model: FluxTransformer2DModel, modules: Sequence[nn.Module] | None = None
) -> AbstractContextManager[None]:
    """Tell `record` and `edit` where PuLID adds to a transformer, which may be without weights.

    modules: which return what is added, one for each place; None for a plan, in which nothing runs.
    """
    blocks = [block.name for block, _ in places_of(model)]
    modules = modules or [nn.Identity() for _ in blocks]
    pairs = zip(blocks, modules, strict=True)
    return declare(model, [Declared(NAME, b, "image", m, returned, _image) for b, m in pairs])


def places_of(model: FluxTransformer2DModel) -> list[tuple[Block, nn.Module]]:
    """The blocks after which something is added, in order of execution, and the module that runs next."""
    blocks = blocks_of(model)
    following = [*(block.module for block in blocks[1:]), model.norm_out]
    every = {"double": DOUBLE_INTERVAL, "single": SINGLE_INTERVAL}
    return [
        (block, module)
        for block, module in zip(blocks, following, strict=True)
        if block.index % every[block.kind] == 0
    ]


def _image(args: Sequence[Any], kwargs: Any, output: Any) -> Tensor:
    """Of what `Added` is called with, what is added to."""
    return args[0]


def _adding(
    clock: Clock, network: Pulid, module: Added, steps: Collection[int] | None
) -> Callable[..., Any]:
    """The hook before the module that runs next; blocks are given names, `norm_out` is not."""

    def add(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not (clock.running and module.scale and (steps is None or clock.step in steps)):
            return None
        image = args[0] if args else kwargs["hidden_states"]
        image = image + module(image, _given(network, clock.nth, len(image)))
        return ((image, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": image})

    return add


def _given(network: Pulid, nth: int, rows: int) -> Tensor:
    """The tokens of a pass; with true CFG the second one of a step is the negative prompt's."""
    name = "unconditional" if nth else "identity"
    tokens: Tensor | None = getattr(network, name)
    if tokens is None:
        raise StepscopeError(f"PuLID has no face: set `{name}` before the call")
    if len(tokens) not in (1, rows):
        raise StepscopeError(
            f"PuLID's `{name}` has {len(tokens)} rows, and the call has {rows}: name one for all, or one "
            "for each"
        )
    return tokens
