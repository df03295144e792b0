"""What an operation is: from values and where they stand to values of the same shape."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch

from stepscope.hooks.edits.donor import Donor
from stepscope.hooks.errors import EditError


class At(NamedTuple):
    """The context of an operation's values: site, step, sigma, branch, and the whole batch.

    site: its name. step: from 0, of `steps` that the call runs. sigma: at the start of the step, as the
    scheduler has it. branch: of the pass. chosen: the rows of the batch that the edit is made to, in its
    order. rows: those of them that the values are of (all, or one where texts differ in length).
    batch: every sample of the branch at the site, (sample, token, channel), with every token.
    tokens: which of its tokens the values are. counts: of each sample, how many tokens these are.
    donor: the recorded run that the operation names.
    """

    site: str
    step: int
    steps: int
    sigma: float
    branch: str
    chosen: tuple[int, ...]
    rows: tuple[int, ...]
    batch: torch.Tensor
    tokens: slice | torch.Tensor
    counts: tuple[int, ...]
    donor: Donor | None = None


Change = Callable[[torch.Tensor, At], torch.Tensor]
"""From values (row, token, channel) and where they stand to values of the same shape."""


def whole_numbers(what: str, given: Sequence[Any]) -> tuple[int, ...]:
    """The numbers as Python's own. Raises EditError for what is not a whole number."""
    wrong = [n for n in given if isinstance(n, bool) or not isinstance(n, int | np.integer)]
    if wrong:
        raise EditError(f"{what}: {wrong[0]!r} is not a whole number")
    return tuple(int(number) for number in given)


def finite_number(what: str, given: Any) -> float:
    """The number. Raises EditError for what is not a finite number."""
    if (
        isinstance(given, bool)
        or not isinstance(given, int | float | np.number)
        or not isfinite(given)
    ):
        raise EditError(f"{what}: {given!r} is not a finite number")
    return float(given)


@dataclass(frozen=True)
class Operation:
    """A function from values and their context (`At`) to values of the same shape; it keeps no state."""

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        raise NotImplementedError

    @property
    def run(self) -> str | None:
        """The path of the recorded run that it takes values from, None if it takes none."""
        return None

    @property
    def samples(self) -> tuple[int, ...] | None:
        """Those of the run that it reads; None for all of them."""
        return None

    def check_rows(self, rows: Sequence[int], batch: int) -> None:
        """Raise EditError where it cannot be done to these rows of a batch of that size."""

    def check_shape(self, site: str, tokens: int, channels: int) -> None:
        """Raise EditError where it cannot be done at a site of that shape."""

    def told(self) -> dict[str, Any]:
        """JSON values that say what it does."""
        return {"do": type(self).__name__}


@dataclass(frozen=True)
class Apply(Operation):
    """A function of the values and of where they stand, for what is not in the list."""

    function: Change

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        return self.function(values, at)

    def told(self) -> dict[str, Any]:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"do": "function", "name": f"{self.function.__module__}.{name}"}
