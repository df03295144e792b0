"""Rows of one batch that a network is given alike are computed once, and their output is repeated.

The samples of a causal study are continued from one x_t in many ways: in the first step an adapter's
network is given the same for all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Once(Protocol):
    """A network that can compute equal rows once. equal_rows_once: whether it does."""

    equal_rows_once: bool


@contextmanager
def equal_rows_once(pipe: Any) -> Iterator[None]:
    """While it lasts, the pipeline's adapter computes equal rows once, if it can."""
    network = getattr(pipe, "controlnet", None)
    if not isinstance(network, Once):
        yield
        return
    network.equal_rows_once = True
    try:
        yield
    finally:
        network.equal_rows_once = False


def computed_once(
    run: Callable[..., Any], hidden_states: Tensor, unlike: Sequence[str] = (), **more: Any
) -> Any:
    """`run(hidden_states, **more)` on the first of each group of rows that are equal in every bit.

    Of the arguments, tensors whose first axis is as long as that of `hidden_states` are rows, but for those
    named in `unlike`; so are all tensors that come out, in tuples and lists. A row is rounded as in a batch
    of that size.
    """
    rows = {k: v for k, v in more.items() if is_rows(v, len(hidden_states)) and k not in unlike}
    first, group = groups([hidden_states, *rows.values()])
    if len(first) == len(hidden_states):
        return run(hidden_states, **more)
    fewer = {name: value[first] for name, value in rows.items()}
    return repeated(run(hidden_states[first], **{**more, **fewer}), group)


def is_rows(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


def groups(tensors: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """The first row of each group of equal rows (row, ...), and of each row the place of its group."""
    first: list[int] = []
    group = []
    for row in range(len(tensors[0])):
        same = (
            k for k, one in enumerate(first) if all(torch.equal(t[row], t[one]) for t in tensors)
        )
        place = next(same, len(first))
        if place == len(first):
            first.append(row)
        group.append(place)
    return first, group


def repeated(output: Any, group: Sequence[int]) -> Any:
    """The output (group, ...) of every row; what is no tensor in a tuple or a list stays as it is."""
    if isinstance(output, Tensor):
        return output[list(group)]
    if isinstance(output, tuple | list):
        return type(output)(repeated(one, group) for one in output)
    return output
