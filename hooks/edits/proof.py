"""Prove on the user's own models that an edit changes what it names and nothing else, and goes again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from stepscope.hooks.edits.operations import Scale
from stepscope.hooks.edits.seen import Halt, Seen, SeenPass, same_bytes
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.edits.verb import edit
from stepscope.hooks.errors import EditError
from stepscope.hooks.finding import Finding
from stepscope.hooks.returned import numbers_of

OWN = ("*.attention.*", "*.residual.*")
"""Sites of the denoiser's own blocks."""
FACTOR = 0.5  # of the edit that is tried; exact in every dtype


def prove_edits(
    pipe: Any, call: Callable[[], Any], plain: np.ndarray, samples: int
) -> list[Finding]:
    """Five claims about edits, in two runs of `call` and the beginnings of up to four more.

    call: as `verify` takes it. plain: what it returned without any hooks. samples: how many it makes.
    """
    claim = "an edit that multiplies by 1 gives the same bytes"
    second, failed = Seen(pipe), ""
    for sites in ("*", OWN):  # an adapter that is off adds zeros, and an edit of them is refused
        first = Seen(pipe)
        try:
            with first.on(Edit(sites, Scale(1.0))):
                same = numbers_of(call())
            break
        except EditError as error:
            failed = str(error)
    else:
        return [Finding(claim, False, failed)]
    with second.on(Edit(first.site, Scale(FACTOR), steps=(0, 1))):
        call()
    differ = int((plain != same).sum())
    return [
        Finding(
            claim,
            plain.tobytes() == same.tobytes(),
            f"{differ} of {plain.size} numbers differ",
        ),
        _as_asked(first, second),
        _upstream(first, second),
        _others(pipe, call, first, samples),
        _left(pipe, call, first.site),
    ]


def _as_asked(first: Seen, second: Seen) -> Finding:
    asked = None if first.values is None else FACTOR * first.values
    holds = (
        asked is not None
        and second.values is not None
        and torch.equal(asked, second.values)
        and bool(asked.any())
    )
    after = [name for name in first.after if first.digests.get(name) != second.digests.get(name)]
    return Finding(
        "an edited site reads as asked, and what comes after it is changed",
        holds and bool(after),
        f"{first.site} times {FACTOR}; {len(after)} of {len(first.after)} outputs after it changed",
    )


def _upstream(first: Seen, second: Seen) -> Finding:
    before = first.before
    other = [name for name in before if first.digests.get(name) != second.digests.get(name)]
    detail = f"{len(before) - len(other)} of {len(before)} outputs before it are the same bytes"
    if other:
        detail += f", the first that is not is {other[0]}"
    return Finding("everything before an edited site is unchanged", not other, detail)


def _others(pipe: Any, call: Callable[[], Any], first: Seen, samples: int) -> Finding:
    """An edit of some rows, one of some tokens and one of a branch, each in a first step of its own."""
    tried, wrong = [], []
    for word, narrow, changed_alone in _narrowed(first, samples):
        seen, refused = Seen(pipe, halts=True), ""
        try:
            with seen.on(Edit(first.site, Scale(FACTOR), steps=(0, 1), **narrow)):
                call()
        except Halt:
            pass
        except EditError as error:
            refused = f" ({error})"
        tried.append(word)
        if refused or not changed_alone([*zip(first.passes, seen.passes, strict=True)]):
            wrong.append(word + refused)
    detail = f"{first.site} times {FACTOR}, of {', '.join(tried) or 'nothing that has a part'}"
    if wrong:
        detail += f"; others changed, or these did not, of {', '.join(wrong)}"
    claim = "an edit of some rows, tokens or one branch leaves the others there as they were"
    return Finding(claim, bool(tried) and not wrong, detail)


Passes = Sequence[tuple[SeenPass, SeenPass]]


def _narrowed(
    first: Seen, samples: int
) -> Iterator[tuple[str, Mapping[str, Any], Callable[[Passes], bool]]]:
    """What an edit is narrowed to: in words, as arguments of `Edit`, and whether passes show that alone.

    A batch of several samples has rows to leave out, and guidance branches. samples: of the call.
    """
    if first.values is None:
        return
    tokens = first.values.shape[1]
    if samples > 1:
        row = samples - 1
        yield (
            f"row {row} of {samples}",
            {"rows": [row]},
            lambda passes: _changed_alone(
                passes, lambda then: (torch.arange(len(then)) % samples == row)[:, None]
            ),
        )
    if tokens > 1:
        chosen = torch.arange(tokens) % 2 == 1
        yield (
            f"{int(chosen.sum())} of {tokens} tokens",
            {"tokens": chosen.numpy()},
            lambda passes: _changed_alone(passes, lambda then: chosen[None]),
        )
    branches = sum(len(one.values) for one in first.passes if one.values is not None) // samples
    if branches > 1:
        yield (
            f"one branch of {branches}",
            {"branch": "positive"},
            lambda passes: _one_branch(passes, samples),
        )


def _comparable(passes: Passes) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The site's values before and now, of passes that were given the same.

    A second pass may start from what the first one made (self-attention guidance).
    """
    for then, now in passes:
        if then.given == now.given and then.values is not None and now.values is not None:
            yield then.values, now.values


def _changed_alone(passes: Passes, where: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether every pass changed where (row, token) is true of it, and nowhere else."""
    found = []
    for then, now in _comparable(passes):
        inside = where(then).expand(then.shape[:2])
        found.append(same_bytes(then[~inside], now[~inside]))
        found.append(not same_bytes(then[inside], now[inside]))
    return bool(found) and all(found)


def _one_branch(passes: Passes, samples: int) -> bool:
    """Whether the rows of one branch alone changed. A pass holds those of each of its branches together."""
    kept = [
        same_bytes(*part)
        for then, now in _comparable(passes)
        for part in zip(then.split(samples), now.split(samples), strict=True)
    ]
    return kept.count(False) == 1


def _left(pipe: Any, call: Callable[[], Any], site: str) -> Finding:
    def halts(values: torch.Tensor, at: Any) -> torch.Tensor:
        raise Halt

    before, stopped = _hooks(pipe), False
    try:
        with edit(pipe, Edit(site, halts)):
            call()
    except Halt:
        stopped = True
    after = _hooks(pipe)
    other = [name for name in after if after[name] != before.get(name)]
    detail = f"{other[0]} is left changed" if other else f"{len(after)} modules as they were"
    return Finding("nothing of an edit is left after an error", stopped and not other, detail)


def _hooks(pipe: Any) -> dict[str, tuple[Any, ...]]:
    """Of every module of the pipeline, its class and the hooks on it; and the pipeline's own class."""
    found: dict[str, tuple[Any, ...]] = {"pipe": (type(pipe),)}
    for part, model in pipe.components.items():
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            hooks = [*module._forward_hooks, -1, *module._forward_pre_hooks]
            found[f"{part}.{name}"] = type(module), "forward" in vars(module), hooks
    return found
