"""The margins of the verdicts: what is decided before anything is measured, in `conf/paper.yaml`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from hooks.errors import StepscopeError, nearest

MODES = ("whole runs", "as predicted", "carried by the latents", "committed")
"""How identity is read against steps: an own run for each number of steps; the estimate x0 along one
run; the same with the adapter off for that evaluation; final images with the adapter off from a step
on."""


@dataclass(frozen=True)
class Margins:
    """What a claim's numbers are held against; none has a default, each is a choice of the study's.

    retention: least share of the baseline's lift that counts as transferred, 0 to 1.
    transfer_margin: cosine by which similarity may fall and still counts as kept.
    distance_margin: share of the baseline's perceptual distance by which it may rise and counts as kept.
    speed: how many times faster at least.
    lost_face: the cosine that stands for a face that was not found, in the worst case beside the rest.
    window_from, window_steps: the paper's early window, in steps done.
    window_decided_by: of MODES, those that decide; the others stand beside.
    plateau_rise: share of the whole rise above which the last quarter of a run is no plateau; a
        straight line has .25.
    """

    retention: float
    transfer_margin: float
    distance_margin: float
    speed: float
    lost_face: float
    window_from: int
    window_steps: int
    window_decided_by: Sequence[str]
    plateau_rise: float

    def __post_init__(self) -> None:
        if isinstance(self.window_decided_by, str):
            object.__setattr__(self, "window_decided_by", (self.window_decided_by,))
        for name in set(self.words()) - {"window_decided_by"}:
            value, whole = getattr(self, name), name.startswith("window_")
            if not isinstance(value, int if whole else (int, float)) or not isfinite(value):
                kind = "whole number" if whole else "number"
                raise StepscopeError(f"verdict.{name}={value!r} is no {kind}")
        if self.window_from > self.window_steps:
            raise StepscopeError(
                f"verdict.window_from={self.window_from} is after verdict.window_steps={self.window_steps}"
            )
        for mode in self.window_decided_by:
            if mode not in MODES:
                raise StepscopeError(
                    f"verdict.window_decided_by: no {mode!r}; {nearest(mode, MODES)}"
                )
        if not self.window_decided_by:
            raise StepscopeError("verdict.window_decided_by is empty: name at least one mode")
        for name in ("transfer_margin", "distance_margin", "plateau_rise"):
            if not getattr(self, name) > 0:
                raise StepscopeError(f"verdict.{name}={getattr(self, name)}: a margin is above 0")

    @classmethod
    def named(cls, values: Mapping[str, Any]) -> "Margins":
        """Of a configuration. Raises StepscopeError for one that is not known, or not there."""
        for name in values:
            if name not in cls.words():
                raise StepscopeError(f"verdict: no {name!r}; {nearest(str(name), cls.words())}")
        for name in cls.words():
            if name not in values:
                raise StepscopeError(f"verdict.{name} is not set")
        return cls(**values)

    @classmethod
    def words(cls) -> tuple[str, ...]:
        """Names of all margins."""
        return tuple(f.name for f in fields(cls))
