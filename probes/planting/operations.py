"""Two operations on an adapter's residuals: put values in their place that are given, and keep them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from stepscope.hooks.edits import Operation
from stepscope.hooks.edits.operation import At

Values = Mapping[tuple[str, int], torch.Tensor]
"""Of a site and a step of the whole run: (person, token, channel)."""


@dataclass(frozen=True, eq=False)
class Given(Operation):
    """Replace the values by given ones.

    people: for each edited row, whose of the given values. start: the step at which the call begins, in
    steps of the whole run.
    """

    values: Values
    people: Sequence[int]
    start: int

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        whole = self.values[at.site, at.step + self.start]
        return whole[[self.people[at.chosen.index(row)] for row in at.rows]].to(values)

    def told(self) -> dict[str, Any]:
        return {"do": "Given", "people": list(self.people)}


@dataclass(frozen=True, eq=False)
class Keep(Operation):
    """Change nothing, and keep the values of a call that begins at the first step."""

    kept: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    def __call__(self, values: torch.Tensor, at: At) -> torch.Tensor:
        self.kept[at.site, at.step] = values.clone()
        return values
