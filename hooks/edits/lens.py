"""Write edited values back into a module's output, or into what a ControlNet hands over."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from stepscope.hooks.edits.operation import Apply, At
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.errors import EditError
from stepscope.hooks.families import Family, Tokens
from stepscope.hooks.streams import spans


@dataclass(frozen=True)
class Now:
    """The pass under way: its tokens, real tokens of each row's text, the branches of its parts, and how
    many samples each part has."""

    family: Family
    tokens: Tokens
    lengths: tuple[int, ...] | None
    parts: tuple[str, ...]
    batch: int


Part = tuple[list[int], list[int], "slice | torch.Tensor"]
"""Rows of a branch that an edit is made to, how many tokens it takes of each sample, and which."""


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that lies in memory as the tensor does: products of another layout may round otherwise."""
    if any(stride == 0 for stride in tensor.stride()):
        return tensor.clone()
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    ).copy_(tensor)


def change(now: Now, edit: Edit, stream: torch.Tensor, at: Callable[[str], At], kind: str) -> bool:
    """Make an edit to a stream (row of the pass, token, channel), in place; whether it touched any.

    at: the operation's context for a branch, without rows and tokens. kind: the stream's name.
    """
    touched = False
    for part, branch in enumerate(now.parts):
        if edit.branch is not None and branch != edit.branch:
            continue
        first = part * now.batch
        whole = stream[first : first + now.batch]
        rows = list(range(now.batch)) if edit.rows is None else [*edit.rows]
        # a function is given a copy: it cannot change rows that the edit does not name
        batch = whole.clone() if isinstance(edit.operation, Apply) else whole
        for some, counts, tokens in _parts(now, edit, kind, first, rows, stream):
            told = at(branch)._replace(
                chosen=tuple(rows),
                rows=tuple(some),
                batch=batch,
                tokens=tokens,
                counts=tuple(counts),
            )
            _write(edit, whole, some, tokens, told)
            touched = True
    return touched


def _write(
    edit: Edit, whole: torch.Tensor, rows: list[int], tokens: slice | torch.Tensor, told: At
) -> None:
    index = torch.tensor(rows, device=whole.device)
    values = whole[index][:, tokens]
    made = edit.operation(values, told)
    if not isinstance(made, torch.Tensor) or made.shape != values.shape:
        got = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        raise EditError(
            f"the operation at {told.site} was given {tuple(values.shape)} and made {got}: return values "
            "of the same shape"
        )
    if isinstance(tokens, slice):
        whole[index, tokens] = made.to(whole)
    else:
        whole[index[:, None], tokens[None]] = made.to(whole)


def _parts(
    now: Now, edit: Edit, kind: str, first: int, rows: Sequence[int], stream: torch.Tensor
) -> Iterator[Part]:
    """Rows that are edited together, since their tokens are the same."""
    count = stream.shape[1]
    if edit.tokens is None:
        yield [*rows], [count] * now.batch, slice(None)
    elif not isinstance(edit.tokens, str):
        chosen = torch.tensor(edit.tokens, device=stream.device).flatten().nonzero()[:, 0]
        yield [*rows], [len(chosen)] * now.batch, chosen
    else:
        found = _words(now, edit.tokens, kind, first, count)
        counts = [len(range(*tokens.indices(count))) if tokens else 0 for tokens in found]
        for tokens in dict.fromkeys((t.start, t.stop) for t in found if t is not None):
            some = [row for row in rows if found[row] == slice(*tokens)]
            if some:
                yield some, counts, slice(*tokens)


def _words(now: Now, word: str, kind: str, first: int, count: int) -> list[slice | None]:
    """Of each sample of a branch, its tokens of that word; None where it has none."""
    found: list[slice | None] = [None] * now.batch
    for span in spans(now.family, now.tokens, now.lengths, kind, count):
        if span.stream != word:
            continue
        for sample in range(now.batch):
            if span.row is None or span.row == first + sample:
                found[sample] = span.tokens or slice(0, count)
    return found


def check_tokens(now: Now, edit: Edit, site: str, kind: str, count: int) -> None:
    """Raise EditError where a site has no such tokens."""
    if edit.tokens is None:
        return
    if not isinstance(edit.tokens, str):
        shape, (y, x) = np.shape(edit.tokens), now.tokens.grid
        if prod(shape) != count or (len(shape) == 2 and shape[0] * x != shape[1] * y):
            raise EditError(
                f"tokens is a mask of {' x '.join(map(str, shape))}, and {site} has {count}"
                + (f": {y} x {x} of the image" if count == y * x else "")
            )
        return
    found = spans(now.family, now.tokens, now.lengths, kind, count)
    kinds = list(dict.fromkeys(span.stream for span in found))
    if edit.tokens not in kinds:
        told = (
            f"it has {' and '.join(kinds)}"
            if kinds
            else ("the prompt was given as embeddings, so its padding tokens are unknown")
        )
        raise EditError(f"{site} has no tokens of {edit.tokens!r}: {told}")
