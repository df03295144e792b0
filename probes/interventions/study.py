"""The schema of a causal study: its parts, and which samples of a run it is made on."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from pydantic import ConfigDict

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.part import Intervention, Part, check_names
from stepscope.probes.values import checked

# a key that is none of ours is a mistake
_ONLY: ConfigDict = {"extra": "forbid"}


@dataclass(frozen=True)
class CausalStudy:
    """A named list of parts, made on the samples of one recorded run.

    name: of the folder in the run, `interventions/<name>`. parts: see `Part`. every, together: how many
    steps, and blocks, are one bin in every part that names none. within: first and end of the steps, and
    among: patterns of the blocks, that the windows to be made are named after; all without them. photos:
    images and folders with other photos of the run's people, for the donor `same`. prompts, faces, seeds:
    restrict the samples; empty for all. rows: of one call, at most. device: None for the run's own. places:
    new paths of models that have moved, by key of the run's configuration. learn: sites of which directions
    are learned besides those that are steered. regions: directions of so many regions a side of the image.
    directions_of: another run with this study, whose directions parts with `learned: there` take; None
    leaves them out. dry: print the plan only.
    """

    name: str
    parts: tuple[Part, ...]
    every: int = 1
    together: int = 1
    within: tuple[int, int] | None = None
    among: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    faces: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    rows: int = 32
    device: str | None = None
    places: Mapping[str, str] | None = None
    learn: tuple[str, ...] = ()
    regions: int = 1
    directions_of: str | None = None
    dry: bool = False

    __pydantic_config__ = _ONLY

    def __post_init__(self) -> None:
        check_names(self.parts)
        for word in ("every", "together", "rows", "regions"):
            if getattr(self, word) < 1:
                raise StepscopeError(f"{word}={getattr(self, word)} is not positive")
        if self.within is not None and self.within[0] >= self.within[1]:
            raise StepscopeError(f"within={list(self.within)} holds no step: [first, end)")

    def holds(self, one: Intervention) -> bool:
        """Whether an intervention is named after one of the steps and blocks that were asked for."""
        first, end = self.within or (0, one.at + 1)
        named = not (self.among and one.block) or any(fnmatch(one.block, p) for p in self.among)
        return first <= one.at < end and named

    @property
    def made(self) -> tuple[Part, ...]:
        """The parts, without those whose directions another run would give, where none is named."""
        there = self.directions_of is not None
        return tuple(part for part in self.parts if there or part.learned is None)

    @property
    def learns(self) -> bool:
        """Whether directions are learned: any part is steered."""
        return any(part.do == "steer" for part in self.parts)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CausalStudy":
        """From plain values as `conf/intervene.yaml` has them. Raises StepscopeError for a wrong value."""
        values = dict(config)
        study = values.pop("edit")
        return checked(cls, {**values, **study})
