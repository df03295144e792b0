"""The speed of two runs compared: the ratio of their seconds, and how many calls it rests on."""

from collections.abc import Sequence

import xarray as xr

from stepscope.analysis.calls import Calls, average, faster, seconds_an_image
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.number import Number


class Ratio(Number):
    """A ratio of seconds, printed with `×`."""

    def __str__(self) -> str:
        value, _, bounds = super().__str__().partition(" ")
        return f"{value}× {bounds}"


def times_faster(evidence: Evidence, runs: list[xr.Dataset]) -> Number:
    """Ratio of the first run's seconds an image to the second's.

    Raises MissingEvidenceError for a run whose latency was not measured.
    """
    slow, fast = (seconds_an_image(run) for run in runs)
    return Ratio.of(faster(slow, fast, level=evidence.level), "ratio", digits=2)


def describe_calls(calls: Sequence[Calls]) -> str:
    """The number of calls of each run, of independent calls that they are worth, and of those left out.

    E.g. `4 + 4 calls, worth 3.1 + 4.0, without 1 + 1 cold, 1 + 0 of another size`.
    """
    counts = " + ".join(str(len(each.seconds)) for each in calls)
    worth = " + ".join(f"{average(each).attrs['worth'][0]:.1f}" for each in calls)
    calls_used = f"{counts} calls, worth {worth}"
    left_out = [
        f"{' + '.join(str(getattr(each, word)) for each in calls)} {what}"
        for word, what in (("cold", "cold"), ("odd", "of another size"))
        if any(getattr(each, word) for each in calls)
    ]
    return calls_used + (f", without {', '.join(left_out)}" if left_out else "")
