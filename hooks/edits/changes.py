"""The changes of the pass under way: at the outputs of sites, and at what an adapter hands over."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import nn

from stepscope.hooks.edits.course import Course
from stepscope.hooks.edits.lens import Now, change, copied
from stepscope.hooks.edits.operation import At
from stepscope.hooks.edits.sites import ADAPTER
from stepscope.hooks.edits.target import Target
from stepscope.hooks.errors import EditError
from stepscope.hooks.families.edges import Edges
from stepscope.hooks.injections.declared import Declared
from stepscope.hooks.injections.lora import Layers
from stepscope.hooks.sites import Block, Site, edited_streams, with_streams


class Changes:
    """Makes the edits of some targets, in their order, while a pass is open.

    of_adapters: sites at which an adapter hands something over. shared: sites that edits of another `with`
    change too.
    """

    def __init__(self, targets: Sequence[Target], of_adapters: Collection[str] = ()) -> None:
        self.targets, self._of_adapters = targets, frozenset(of_adapters)
        self.shared: set[str] = set()
        self._pass: tuple[Now, Course] | None = None
        self._step = self._nth = 0

    def open(self, now: Now, course: Course, step: int, nth: int) -> None:
        """A pass of the denoiser begins: the `nth` of the step."""
        self._pass, self._step, self._nth = (now, course), step, nth

    def close(self) -> None:
        """No call runs."""
        self._pass = None

    @property
    def _is_first(self) -> bool:
        """Whether this is the first pass of a call, in which what cannot fit is refused."""
        return (self._step, self._nth) == (0, 0)

    def _due(self, targets: Sequence[Target]) -> bool:
        """Whether any of them is made in this step, or is to be refused in it."""
        return self._is_first or any(self._step in target.inside for target in targets)

    def handed(self, edges: Edges | None, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The pass's arguments with what the adapter adds changed; None where nothing of it is edited."""
        asked = {s for t in self.targets for s in t.sites if s.endswith(f".{ADAPTER}")}
        if edges is None or not asked:
            return None
        changed = {}
        for name, use in edges.uses(kwargs).items():
            if name in asked and self._due([t for t in self.targets if name in t.sites]):
                tokens = copied(edges.tokens(use))
                if self._make(name, "image", tokens):
                    changed[name] = edges.given(tokens, use)
        # also where nothing is changed: whoever counts residuals meets as many in every pass of a call
        return edges.handed(kwargs, changed) if edges.uses(kwargs) else None

    def _make(self, site: str, kind: str, stream: torch.Tensor) -> bool:
        """Make every edit of a site whose window holds this step, in place; whether there was any."""
        assert self._pass is not None
        now, course = self._pass
        made = False
        # before any edit of the site: one that multiplies by 0 does not turn the adapter off
        seen = site in self._of_adapters and site not in self.shared
        alive = stream.any() if seen else None
        for target in self.targets:
            if site not in target.sites:
                continue
            if self._is_first:
                target.check_shape(now, site, kind, stream)
            if self._step not in target.inside:
                continue
            if change(now, target.edit, stream, self._at(course, site, target, stream), kind):
                target.saw(site, alive)
                made = True
        return made

    def _at(
        self, course: Course, site: str, target: Target, stream: torch.Tensor
    ) -> Callable[[str], At]:
        clock = site, self._step, len(course.sigmas), course.sigmas[self._step]
        return lambda branch: At(*clock, branch, (), (), stream, slice(None), (), target.donor)

    def hook(self, block: Block, site: Site) -> Callable[..., Any] | None:
        """The forward hook of a site's module; None where no edit is made."""
        names = [f"{block.name}.{site.quantity}.{stream}" for stream in site.streams]
        mine = [target for target in self.targets if {*target.sites} & {*names}]

        def made(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            if module is not site.module or self._pass is None:  # a copy took the hook along
                return None
            if not self._due(mine):
                return None
            if site.split is not None:
                streams = edited_streams(output) or site.split(module, args, kwargs, output)
                if len(streams) > 1:
                    return self._summed(site, names, output, streams)
            copy = _copied(output)
            tokens = self._pass[0].tokens
            read = site.read(copy, tokens.image + tokens.reference)
            return copy if self._make_all(names, site, read) else None

        return made if mine else None

    def declared(self, one: Declared) -> Callable[..., Any] | None:
        """The forward hook of the module whose output an adapter adds; None where no edit is made."""
        name = one.place.name
        mine = [target for target in self.targets if name in target.sites]

        def made(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
            if module is not one.module or self._pass is None or not self._due(mine):
                return None
            if not isinstance(output, torch.Tensor) or output.ndim != 3:
                raise EditError(f"{name} is no (row, token, channel): {type(output).__name__}")
            copy = copied(output)
            return copy if self._make(name, one.stream, copy) else None

        return made if mine else None

    def low_rank(self, layers: Layers, path: str, name: str) -> Callable[..., Any] | None:
        """The forward hook of a LoRA's second matrix in a layer; None where no edit is made."""
        names = {place.name for place in layers.places(path, name)}
        mine = [target for target in self.targets if names & {*target.sites}]
        matrix = layers.layers[path].lora_B[name]

        def made(module: nn.Module, args: Any, output: Any) -> Any:
            if module is not matrix or self._pass is None or not self._due(mine):
                return None
            copy = copied(output)
            parts = layers.parts(path, name, copy, self._pass[0].tokens.context)
            changed = [self._make(place.name, place.stream, part) for place, part in parts]
            return copy if any(changed) else None

        return made if mine else None

    def _make_all(self, names: Sequence[str], site: Site, streams: Sequence[torch.Tensor]) -> bool:
        each = zip(names, site.streams, streams, strict=False)
        made = [self._make(name, kind, stream) for name, kind, stream in each]
        return any(made)

    def _summed(
        self,
        site: Site,
        names: Sequence[str],
        output: torch.Tensor,
        streams: Sequence[torch.Tensor],
    ) -> torch.Tensor | None:
        """An output that is the sum of its streams, bit for bit as it was where they are."""
        after = tuple(copied(stream) for stream in streams)
        if not self._make_all(names, site, after):
            return None
        for old, new in zip(streams, after, strict=True):
            output = torch.where(new == old, output, output + (new - old))
        return with_streams(output, after)


def _copied(output: Any) -> Any:
    """A module's output, a tensor or several, with tensors of its own."""
    if isinstance(output, torch.Tensor):
        return copied(output)
    return tuple(copied(part) if isinstance(part, torch.Tensor) else part for part in output)
