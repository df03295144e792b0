"""What is measured of one organism: whether its identity was planted, and its edited runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stepscope.probes.planting.gradient import gradient_times_activation
from stepscope.probes.planting.grown import Grown
from stepscope.probes.planting.methods import Row, edited, rows_of

Map = Float[np.ndarray, "target group step"]
Judging = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""From final latents (row, channel, y, x) and whom each should show to similarities (row,): a `Judge`."""


@dataclass(frozen=True)
class Check:
    """Similarity of each target with the planted identity, without it, and with one part alone."""

    on: Float[np.ndarray, " target"]
    off: Float[np.ndarray, " target"]
    each: Float[np.ndarray, "part target"]

    def passes(self, least: float, enough: float) -> bool:
        """Whether similarity rises for every target, by `least` in the mean, of which each part alone has
        `enough`."""
        gain = self.on - self.off
        alone = (self.each - self.off).mean(1) if len(self.each) else np.array([np.inf])
        shows = (gain > 0).all() and gain.mean() >= least
        return bool(shows and (alone >= enough * gain.mean()).all())


@dataclass(frozen=True)
class Seen:
    """An organism and the similarities, to each target, that its methods read.

    on: of the run on the target; other: of the run on the person whose values are exchanged with the
    target's; nothing: of the run in which the adapter adds zeros. edited: of every edited run.
    slopes: see `gradient_times_activation`.
    """

    grown: Grown
    on: Float[np.ndarray, " target"]
    other: Float[np.ndarray, " target"]
    nothing: Float[np.ndarray, " target"]
    edited: Mapping[Row, float]
    slopes: Map

    def map_of(self, method: str) -> Map:
        """Similarity after each of a method's edits; NaN where the edit would change nothing."""
        bench, targets = self.grown.bench, [*self.grown.targets]
        found = np.full((len(targets), len(bench.groups), bench.steps), np.nan)
        for row, similarity in self.edited.items():
            if row.method == method:
                found[targets.index(row.target), row.place.group, row.place.step] = similarity
        return found


def check(grown: Grown, judge: Judging) -> Check:
    """Measure whether the planted identity shows."""
    targets = [*grown.targets]
    names = [grown.bench.people[target] for target in targets]
    each = [judge(part, names) for part in grown.each]
    return Check(
        judge(grown.base.final[targets], names),
        judge(grown.off, names),
        np.stack(each) if each else np.zeros((0, len(targets))),
    )


def see(grown: Grown, judge: Judging, size: int) -> Seen:
    """Make and measure everything that the methods read. size: rows of one call, at most."""
    bench, targets = grown.bench, [*grown.targets]
    names = [bench.people[target] for target in targets]
    final = edited(grown, rows_of(grown), size)
    measured = judge(np.stack([*final.values()]), [bench.people[row.target] for row in final])
    others = [bench.other(target) for target in targets]
    return Seen(
        grown,
        judge(grown.base.final[targets], names),
        judge(grown.base.final[others], names),
        judge(bench.without.final.repeat(len(targets), 0), names),
        dict(zip(final, measured.tolist(), strict=True)),
        gradient_times_activation(grown),
    )
