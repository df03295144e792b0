"""Which of a run's steps, or of its blocks, an intervention touches: one, the first ones, all but one."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np

from stepscope.hooks.errors import StepscopeError, nearest

Word = Literal["only", "first", "from", "all_but", "all", "shuffled"]
SHUFFLED = "shuffled"


class Window(NamedTuple):
    """Places of an ordered list, ascending. at: the place that the window is named after.

    `only` and `all_but`: the first place of the bin that is in, or is left out; `first`: how many places
    are in; `from`: the first place that is in; `all`: 0; `shuffled`: how many places are in, but for a
    smaller last bin.
    """

    at: int
    places: tuple[int, ...]


def windows(word: str, count: int, width: int = 1, seed: int = 0) -> Iterator[Window]:
    """Every window of a kind, over `count` places in bins of `width`; the last bin may be smaller.

    `shuffled` is the control of `first` and `from`: as many places, the first bins of an order that `seed`
    draws. Windows without places, and `first` and `from` that hold every place, are not made: `all` is that
    one. Raises StepscopeError for an unknown word and a width below 1.
    """
    if word not in get_args(Word):
        raise StepscopeError(f"no window {word!r}; {nearest(word, get_args(Word))}")
    if width < 1:
        raise StepscopeError(f"a bin of {width} places holds none")
    every = tuple(range(count))
    if word == "all":
        yield Window(0, every)
        return
    starts = range(0, count, width)
    if word == SHUFFLED:
        order = np.random.default_rng(seed).permutation(len(starts)).tolist()
        for bins in range(1, len(starts)):
            chosen = sorted(starts[i] for i in order[:bins])
            yield Window(bins * width, tuple(p for s in chosen for p in every[s : s + width]))
        return
    for start in starts:
        inside = every[start : start + width]
        places = {
            "only": inside,
            "first": every[:start],
            "from": every[start:] if start else (),
            "all_but": every[:start] + every[start + width :],
        }[word]
        if places:
            yield Window(start, places)


def stretches(places: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The contiguous stretches of ascending places, half open."""
    start = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end] != places[end - 1] + 1:
            yield places[start], places[end - 1] + 1
            start = end
