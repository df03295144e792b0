"""An edit as a value: which sites, when, whose, and what is done to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stepscope.hooks.edits.operation import Apply, Change, Operation, whole_numbers
from stepscope.hooks.errors import EditError, nearest
from stepscope.hooks.fingerprint import of_bytes
from stepscope.hooks.vocabulary import BRANCHES

TOKENS = ("image", "reference", "text", "padding")
"""Words that choose among the tokens of a stream."""


@dataclass(frozen=True)
class Edit:
    """One change to the values of some sites, in some steps, branches, rows and tokens.

    sites: shell-style patterns of site names; one, or several. `double.07.attention.image`,
        `*.residual.text`, an IP-Adapter's output `*.attention.image_prompt`, what another adapter adds
        `double.00.image.pulid`, a ControlNet's residual after a block `double.07.adapter` (of a U-Net, to a
        skip connection, `skip.03.adapter`). Where no ControlNet's is called so, `<block>.adapter` is all
        that other adapters add in the block.
    do: an operation, or a function of the values (row, token, channel) and their context (`At`).
    steps: (start, end), start <= step < end; an end of None is the last step's. sigmas: (start, end) with
        start >= sigma > end. Neither: every step.
    branch: of the pass; None for every branch that runs.
    rows: of the batch of samples, from 0; None for all.
    tokens: `image`, `reference`, `text` or `padding`; or a mask over the tokens of the stream, in their
        order (of an image row by row), true where the edit is made. None for all.

    Raises EditError for a value that fits no call.
    """

    sites: str | Sequence[str]
    do: Operation | Change
    steps: Sequence[int | None] | None = None
    sigmas: Sequence[float] | None = None
    branch: str | None = None
    rows: Sequence[int] | None = None
    tokens: Any = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "sites", (self.sites,) if isinstance(self.sites, str) else tuple(self.sites))
        if not self.sites:
            raise EditError("an edit names no site: sites='double.*.attention.image'")
        if not isinstance(self.do, Operation):
            if not callable(self.do) or isinstance(self.do, type):
                raise EditError(
                    f"do={self.do!r} is no operation: Scale(0.0), Mean(run), Swap((1, 0)), "
                    "Add(direction, 1.0), or a function f(values, at)"
                )
            put(self, "do", Apply(self.do))
        self._check_window()
        if self.branch is not None and self.branch not in BRANCHES:
            raise EditError(f"no branch {self.branch!r}; {nearest(self.branch, BRANCHES)}")
        if self.rows is not None:
            put(self, "rows", whole_numbers("rows", self.rows))
            if not self.rows or min(self.rows) < 0 or len(set(self.rows)) != len(self.rows):
                raise EditError(f"rows={list(self.rows)}: name rows of the batch from 0, each once")
        self._check_tokens()

    def _check_window(self) -> None:
        if self.steps is not None and self.sigmas is not None:
            raise EditError(
                f"steps={self.steps} and sigmas={self.sigmas}: name one of the two windows"
            )
        for name, window in (("steps", self.steps), ("sigmas", self.sigmas)):
            if window is None:
                continue
            if len(window) != 2:
                raise EditError(f"{name}={window!r}: name two numbers, a start and an end")
            object.__setattr__(self, name, tuple(window))
        if self.steps is not None:
            start, end = self.steps
            whole_numbers("steps", [bound for bound in self.steps if bound is not None])
            if start is None or start < 0 or (end is not None and end <= start):
                raise EditError(
                    f"steps={self.steps} is empty: start <= step < end, and steps are counted from 0"
                )
        if self.sigmas is not None and not self.sigmas[0] > self.sigmas[1]:
            raise EditError(
                f"sigmas={self.sigmas} is empty: sigma falls along a run, and start >= sigma > end"
            )

    def _check_tokens(self) -> None:
        if self.tokens is None or isinstance(self.tokens, str):
            if self.tokens is not None and self.tokens not in TOKENS:
                raise EditError(f"no tokens {self.tokens!r}; {nearest(self.tokens, TOKENS)}")
            return
        mask = np.asarray(self.tokens)
        if mask.dtype != bool or mask.ndim not in (1, 2):
            raise EditError(
                f"tokens of shape {mask.shape} and {mask.dtype}: a mask is true or false for each token, "
                "(token,) or (token_y, token_x)"
            )
        if not mask.any():
            raise EditError("tokens is a mask that is true nowhere: the edit would touch nothing")
        object.__setattr__(self, "tokens", _frozen(mask.tolist()))

    @property
    def operation(self) -> Operation:
        """`do`, a function as an operation."""
        assert isinstance(self.do, Operation)
        return self.do

    @property
    def patterns(self) -> tuple[str, ...]:
        """`sites`, one pattern as several."""
        assert isinstance(self.sites, tuple)
        return self.sites

    def inside(self, step: int, sigma: float) -> bool:
        """Whether a step is in the window."""
        if self.steps is not None:
            start, end = self.steps
            return (start or 0) <= step and (end is None or step < end)
        if self.sigmas is not None:
            return self.sigmas[0] >= sigma > self.sigmas[1]
        return True

    def told(self) -> dict[str, Any]:
        """JSON values that say what the edit is; what is not restricted is left out."""
        window: dict[str, Sequence[Any] | str | None] = {
            "steps": self.steps and list(self.steps),
            "sigmas": self.sigmas and list(self.sigmas),
            "branch": self.branch,
            "rows": self.rows and list(self.rows),
            "tokens": self.tokens if isinstance(self.tokens, str | None) else _mask(self.tokens),
        }
        return {
            "sites": list(self.patterns),
            **self.operation.told(),
            **{name: value for name, value in window.items() if value is not None},
        }


def _frozen(mask: Any) -> Any:
    """Lists as tuples, so that an edit cannot change."""
    return tuple(map(_frozen, mask)) if isinstance(mask, list) else mask


def _mask(tokens: Any) -> str:
    """A mask in words, which tell it from another."""
    mask = np.asarray(tokens)
    return f"{mask.sum()} of {mask.size}, {of_bytes(mask.tobytes())}"
