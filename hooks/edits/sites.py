"""The sites of a pipeline that can be edited, by name, and what each edit's patterns choose of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from stepscope.hooks.clock import controlnet_of, denoiser_of
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.errors import EditError, StepscopeError
from stepscope.hooks.families import blocks_of, family_of
from stepscope.hooks.families.edges import Edges
from stepscope.hooks.injections.declared import Declared, declared_of
from stepscope.hooks.injections.injection import Injection
from stepscope.hooks.injections.lora import Layers, in_layers
from stepscope.hooks.sites import Block, matching

ADAPTER, IMAGE_PROMPT = "adapter", "image_prompt"


@dataclass(frozen=True)
class Sites:
    """Every place of a denoiser that an edit can be made at.

    blocks: with the sites whose outputs they are. edges: what an adapter's network adds, None without.
    image_prompt: whether an IP-Adapter is loaded. layers: those that hold LoRAs, None without.
    declared: what other adapters declare, where it can be edited. beside: patterns of the names that
    adapters have along `injection`; `<block>.adapter` leaves these out.
    """

    blocks: Sequence[Block]
    edges: Edges | None
    image_prompt: bool
    declared: Sequence[Declared] = ()
    layers: Layers | None = None
    beside: Sequence[str] = ()

    @classmethod
    def of(cls, denoiser: nn.Module, network: nn.Module | None) -> "Sites":
        """Those of a denoiser, and of a ControlNet beside it if there is one."""
        edges = family_of(denoiser).edges
        processors = getattr(denoiser, "attn_processors", {}).values()
        return cls(
            blocks_of(denoiser),
            None if edges is None or network is None else edges(denoiser, network),
            any(hasattr(processor, "to_k_ip") for processor in processors),
            [one for one in declared_of(denoiser) if one.editable],
            in_layers(denoiser, None),
        )

    @classmethod
    def of_pipe(cls, pipe: Any) -> "Sites":
        return cls.of(denoiser_of(pipe), controlnet_of(pipe))

    @property
    def aliases(self) -> dict[str, list[str]]:
        """`<block>.adapter` where adapters add and no ControlNet does, and the names of their sites."""
        prompts = [
            (block.name, f"{block.name}.{site.quantity}.{IMAGE_PROMPT}")
            for block in self.blocks
            for site in block.sites
            if IMAGE_PROMPT in site.streams and self.image_prompt and not self._out("ip_adapter:0")
        ]
        places = [(one.block, one.name) for one in self._places if not self._out(one.adapter)]
        named: dict[str, list[str]] = {}
        for block, site in [*prompts, *places]:
            if (alias := f"{block}.{ADAPTER}") not in self._edges:
                named.setdefault(alias, []).append(site)
        return named

    def _out(self, adapter: str) -> bool:
        """Whether `<block>.adapter` leaves an adapter out."""
        return any(fnmatchcase(adapter, pattern) for pattern in self.beside)

    @property
    def _edges(self) -> Sequence[str]:
        """Sites of what a ControlNet hands over; none where it is left out."""
        return () if self.edges is None or self._out("controlnet") else self.edges.names

    @property
    def handed(self) -> list[str]:
        """Those at which an adapter hands something over, or nothing while it is off."""
        return [*self._edges, *(place.name for place in self._places)]

    @property
    def _places(self) -> list[Injection]:
        """Of LoRAs, and of adapters that declare theirs."""
        low_rank = self.layers.injections if self.layers is not None else []
        return [*low_rank, *(one.place for one in self.declared)]

    @property
    def names(self) -> list[str]:
        """In order of execution; those of adapters last."""
        own = [
            f"{block.name}.{site.quantity}.{stream}"
            for block in self.blocks
            for site in block.sites
            for stream in site.streams
            if stream != IMAGE_PROMPT or self.image_prompt
        ]
        return own + self.handed

    def chosen(self, edit: Edit) -> list[str]:
        """Names of the sites that an edit is made at.

        Raises EditError for a pattern that matches none.
        """
        for pattern in edit.patterns:
            if pattern.endswith(f".{ADAPTER}") and self.edges is None and not self.aliases:
                raise EditError(
                    f"no site matches {pattern!r}: the pipeline has no ControlNet (or InfuseNet) that "
                    "adds anything between blocks, no IP-Adapter, no LoRA, and none that declares what it "
                    "adds"
                )
            if pattern.endswith(f".{IMAGE_PROMPT}") and not self.image_prompt:
                raise EditError(
                    f"no site matches {pattern!r}: it is what an IP-Adapter adds, and none is loaded. "
                    "pipe.load_ip_adapter(...) first"
                )
        try:
            found = matching(edit.patterns, [*self.names, *self.aliases])
        except StepscopeError as error:
            raise EditError(str(error)) from error
        aliases = self.aliases
        return list(dict.fromkeys(site for name in found for site in aliases.get(name, [name])))
