"""Rows of a batch that are alike go through a transformer block once, as one row.

The rows of a causal study begin at one x_t and differ from where they are edited: up to there a block
computes the same for all of them.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stepscope.hooks.clock import controlnet_of, denoiser_of
from stepscope.hooks.families import FAMILIES, blocks_of
from stepscope.hooks.patch import replaced

ROWS = ("hidden_states", "encoder_hidden_states", "temb")
"""Arguments of a block with one entry for each row of the batch."""
SHARED = ("image_rotary_emb",)
"""Arguments that are the same for all rows."""


@dataclass
class Shared:
    """How many rows blocks were given, and how many of them were computed."""

    given: int = 0
    computed: int = 0


@contextmanager
def alike_once(*networks: nn.Module) -> Iterator[Shared]:
    """While it lasts, the networks' blocks compute rows that are alike once.

    Two rows are alike if they are equal in every number that a block is given. The results are those of a
    smaller batch, which may round otherwise. A block is left alone if it is given arguments that are not
    known (`ROWS`, `SHARED`), or holds hooks: those count rows. Once all rows of a pass differ, its later
    blocks are not compared.
    """
    shared = Shared()
    with ExitStack() as stack:
        for network in networks:
            one = _Network(shared)
            for i, block in enumerate(blocks_of(network)):
                stack.enter_context(replaced(block.module, "forward", one.around(block.module, i)))
        yield shared


class _Network:
    """The blocks of one network, in order; whether the rows of its pass may still be alike."""

    def __init__(self, shared: Shared) -> None:
        self._shared, self._may = shared, True

    def around(self, block: nn.Module, place: int) -> Callable[..., Any]:
        signature = inspect.signature(block.forward)

        def forward(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            self._may = self._may or place == 0
            if not self._may or _hooked(block):
                return original(*args, **kwargs)
            bound = signature.bind(*args, **kwargs)
            given = rows_given(bound.arguments)
            if given is None:
                return original(*args, **kwargs)
            stands = first_alike(list(given.values()))
            chosen = sorted(set(stands))
            self._shared.given += len(stands)
            self._shared.computed += len(chosen)
            if len(chosen) == len(stands):
                self._may = False
                return original(*args, **kwargs)
            bound.arguments.update({name: rows[chosen] for name, rows in given.items()})
            made = original(*bound.args, **bound.kwargs)
            place_of = torch.tensor([chosen.index(row) for row in stands])
            return _spread(made, place_of)

        return forward


def networks_of(pipe: Any) -> list[nn.Module]:
    """A pipeline's denoiser, and the ControlNet beside it if it has one of a known family."""
    beside = controlnet_of(pipe)
    known = beside is not None and any(isinstance(beside, family.model) for family in FAMILIES)
    return [denoiser_of(pipe), *([beside] if beside is not None and known else [])]


def _hooked(block: nn.Module) -> bool:
    """Whether a module within a block has hooks."""
    inside = (module for module in block.modules() if module is not block)
    return any(module._forward_hooks or module._forward_pre_hooks for module in inside)


def rows_given(arguments: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Those of a block's arguments that have rows; None where it is not known which have."""
    rows = {n: v for n, v in arguments.items() if n in ROWS and isinstance(v, Tensor)}
    rest = {n: v for n, v in arguments.items() if n not in rows and n not in SHARED}
    alone = any(v is not None and v != {} for v in rest.values())
    if alone or len({len(v) for v in rows.values()}) != 1:
        return None
    return rows


def first_alike(given: Sequence[Tensor]) -> list[int]:
    """Of each row of tensors (row, ...), the first that equals it in all of them, perhaps itself.

    Rows with NaN equal none.
    """
    sums = torch.stack([rows.flatten(1).float().sum(1) for rows in given], 1).tolist()
    seen: dict[tuple[float, ...], list[int]] = {}
    found = []
    for row, key in enumerate(map(tuple, sums)):
        earlier = seen.setdefault(key, [])
        same = next(
            (e for e in earlier if all(torch.equal(rows[e], rows[row]) for rows in given)), row
        )
        if same == row:
            earlier.append(row)
        found.append(same)
    return found


def _spread(made: Any, rows: Tensor) -> Any:
    """What a block made of the rows that stand for others, for all of them."""
    if isinstance(made, Tensor):
        return made[rows.to(made.device)]
    return tuple(None if part is None else _spread(part, rows) for part in made)
