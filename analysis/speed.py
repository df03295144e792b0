"""Seconds of two runs against each other, in numbers and in words."""

from collections.abc import Sequence

import xarray as xr

from analysis.calls import Calls, average, faster, seconds_an_image
from analysis.evidence import Evidence
from analysis.number import Number


class Ratio(Number):
    """How many times faster."""

    def __str__(self) -> str:
        value, _, bounds = super().__str__().partition(" ")
        return f"{value}× {bounds}"


def times_faster(evidence: Evidence, runs: list[xr.Dataset]) -> Number:
    """The first run's seconds an image over the second's. Raises MissingEvidenceError."""
    slow, fast = (seconds_an_image(run) for run in runs)
    return Ratio.of(faster(slow, fast, level=evidence.level), "ratio", digits=2)


def counted(calls: Sequence[Calls]) -> str:
    """How many calls of each run count, what they are worth, and how many do not count.

    `4 + 4 calls, worth 3.1 + 4.0, without 1 + 1 cold, 1 + 0 of another size`.
    """
    counts = " + ".join(str(len(each.seconds)) for each in calls)
    worth = " + ".join(f"{average(each).attrs['worth'][0]:.1f}" for each in calls)
    told = f"{counts} calls, worth {worth}"
    left = [
        f"{' + '.join(str(getattr(each, word)) for each in calls)} {what}"
        for word, what in (("cold", "cold"), ("odd", "of another size"))
        if any(getattr(each, word) for each in calls)
    ]
    return told + (f", without {', '.join(left)}" if left else "")
