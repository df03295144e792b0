"""Labels, places and extra variables that the caller gives for the samples of the next call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stepscope.hooks.errors import RunError
from stepscope.hooks.labels import Label


@dataclass(frozen=True)
class NextCall:
    """labels: of each sample, None if the caller gave none. places: each sample's in the run; None is not
    kept. face_seconds: NaN where not measured. extras: further variables of each sample."""

    labels: Sequence[Label] | None = None
    places: Sequence[int | None] | None = None
    face_seconds: float = float("nan")
    extras: Sequence[Mapping[str, np.ndarray]] | None = None

    def check_counts(self, samples: int) -> None:
        """Raise RunError if the caller described another number of samples than the call makes."""
        for given, method in ((self.labels, "label()"), (self.places, "place()")):
            if given is not None and len(given) != samples:
                raise RunError(f"{method} named {len(given)} samples and the call makes {samples}")

    def over(self, seen: Sequence[Label]) -> list[Label]:
        """The labels of what was seen with the caller's own words over them."""
        own = self.labels or [{}] * len(seen)
        return [{**one, **words} for one, words in zip(seen, own, strict=True)]
