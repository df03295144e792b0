"""The margins of the verdicts, which `conf/paper.yaml` sets before anything is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

from stepscope.hooks.errors import StepscopeError, nearest

MODES = ("whole runs", "as predicted", "carried by the latents", "committed")
"""How identity is read against steps: final images of whole runs of different step counts; the estimate
x0 along one run; the same with the adapter off for that evaluation; final images with the adapter off
from a step on."""


@dataclass(frozen=True)
class Margins:
    """The bounds of the rules. None has a default: each is a choice of the study.

    retention: smallest share of the baseline's lift that counts as transferred, 0 to 1.
    least_lift: cosine that the adapter has to give the baseline; of a smaller lift no share is asked for.
    transfer_margin: largest fall of the cosine that counts as no loss of similarity, above 0.
    distance_margin: largest rise of the perceptual distance that counts as none, as a share of the
        baseline's, above 0.
    speed: smallest ratio of seconds an image, baseline over swapped.
    lost_face: cosine that replaces that of an image without a face, in the worst case, -1 to 1.
    window_from, window_steps: start and end of the paper's early window, in steps done.
    window_decided_by: names of the MODES that decide; the others are secondary.
    plateau_rise: share of the whole rise, above 0, below which the last quarter of a run is a plateau;
        a straight line has 0.25.

    Raises StepscopeError for an unknown mode, for none, and for a margin that is not above 0.
    """

    retention: float
    least_lift: float
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
                raise StepscopeError(
                    f"verdict.{name}={getattr(self, name)}: a margin must be above 0"
                )

    @classmethod
    def named(cls, values: Mapping[str, Any]) -> "Margins":
        """The margins of a configuration. Raises StepscopeError for an unknown or a missing name."""
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
