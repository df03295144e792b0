"""How often the intervals hold the truth: every estimator on synthetic studies, in one list."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.bootstrap import ExpandedPercentile, Interval, JackknifeT
from analysis.calls import average as mean_seconds
from analysis.calls import faster, seconds_an_image
from analysis.cells import average, detection_rate
from analysis.compare import compare
from analysis.drift import drift, lag
from analysis.saturation import BrokenLine, Estimator, ExponentialApproach, ShareOfPlateau
from analysis.synthetic import Approach, Hinge, Study, Timing
from analysis.windows import window

WINDOW = ExpandedPercentile(resamples=999)
MEAN = JackknifeT()
Ends = Float[np.ndarray, "end=2 study"]
"""Lower and upper ends of the intervals of many simulated studies."""
Random = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A quantity with a known value: `ends` simulates so many studies and gives their intervals.

    Number of faces and interval are arguments of `ends`, so that a table can vary them; `interval`
    is the recommended one. Latency has calls in place of faces, the first of them cold. own: the
    interval's name where the quantity has one of its own, of which `interval` gives the level alone.
    """

    name: str
    truth: float
    interval: Interval
    ends: Callable[[Random, int, Interval, int], Ends]
    own: str = ""

    def coverage(self, interval: Interval, *, faces: int, studies: int) -> float:
        """Share of `studies` whose interval holds the truth, 0 to 1; a fixed seed draws them."""
        low, high = self.ends(np.random.default_rng(faces), faces, interval, studies)
        return float(np.mean((low <= self.truth) & (self.truth <= high)))


def _one_by_one(
    name: str,
    truth: float,
    interval: Interval,
    study: Callable[[Random, int, Interval], xr.Dataset],
    own: str = "",
) -> Case:
    """A case whose estimator takes one study at a time."""

    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        each = [study(rng, faces, interval) for _ in range(studies)]
        return np.array([[one["low"].item(), one["high"].item()] for one in each]).T

    return Case(name, truth, interval, ends, own)


def _window(name: str, study: Study, estimator: Estimator, truth: float | None = None) -> Case:
    steps = np.arange(study.steps, dtype=float)
    known = estimator(study.population()[None], steps).position.item() if truth is None else truth

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return window(replace(study, faces=faces)(rng), estimator, interval, against="step")

    return _one_by_one(name, known, WINDOW, one)


def _lag(name: str, identity: Study, other: Study, estimator: Estimator, truth: float) -> Case:
    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        first, second = (replace(study, faces=faces)(rng) for study in (identity, other))
        return lag(first, second, estimator, interval, against="step")

    return _one_by_one(name, truth, WINDOW, one)


def _drift(name: str, study: Study, *, from_named_peak: bool) -> Case:
    """The fall from the peak that the estimate names, or from the population's own."""
    known = study.population() - study.population()[-1]

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        found = drift(replace(study, faces=faces)(rng), interval)
        beside = known.max() - known[int(found["peak"])] if from_named_peak else 0.0
        return found[["low", "high"]] + beside

    return _one_by_one(name, known.max(), MEAN, one)


def _seconds(name: str, run: Timing) -> Case:
    def one(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        return mean_seconds(seconds_an_image(replace(run, calls=calls)(rng)), level=interval.level)

    return _one_by_one(name, run.seconds, MEAN, one, "Student, calls")


def _faster(name: str, slow: Timing, fast: Timing) -> Case:
    def one(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        both = [seconds_an_image(replace(run, calls=calls)(rng)) for run in (slow, fast)]
        return faster(*both, level=interval.level)

    return _one_by_one(name, slow.seconds / fast.seconds, MEAN, one, "Fieller, calls")


def _last(study: Study, rng: Random, faces: int, studies: int) -> xr.DataArray:
    """The last step of many studies, (sample, study)."""
    each = [replace(study, faces=faces)(rng).isel(step=-1, drop=True) for _ in range(studies)]
    values = np.stack([one.values for one in each], 1)
    return xr.DataArray(values, dims=("sample", "study"), coords=each[0].coords)


def _mean(name: str, study: Study, truth: float) -> Case:
    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        found = average(_last(study, rng, faces, studies), interval)
        return np.stack([found["low"], found["high"]])

    return Case(name, truth, MEAN, ends)


def _detection(name: str, study: Study) -> Case:
    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        found = detection_rate(_last(study, rng, faces, studies), level=interval.level)
        return np.stack([found["low"], found["high"]])

    return Case(name, 1 - study.missing, MEAN, ends, "Wilson, effective size")


def _effect(name: str, effect: float, *, standardised: bool = False) -> Case:
    between, within = 0.03, 0.1
    words = ("d_z_low", "d_z_high") if standardised else ("low", "high")

    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        base = _last(Study(Hinge(9.0)), rng, faces, studies)
        face = rng.normal(0, between, (faces, studies)).repeat(len(base) // faces, axis=0)
        changed = base + effect + face + rng.normal(0, within, base.shape)
        found = compare(base, changed, interval)
        return np.stack([found[word] for word in words])

    truth = effect / np.hypot(between, within) if standardised else effect
    return Case(name, truth, MEAN, ends)


HINGE, APPROACH = Study(Hinge(9.3)), Study(Approach(4.0))
PACED = replace(HINGE, timing_sd=0.2), replace(APPROACH, timing_sd=0.2)
DRIFTING, BETWEEN = Study(Hinge(9.0, slope=-0.01)), Study(Hinge(9.3, slope=-0.01))
SHARE = ShareOfPlateau(share=0.9)

CASES: tuple[Case, ...] = (
    _window("share of plateau", HINGE, SHARE, 0.9 * 9.3),
    _window("share of plateau, faces differ in pace", PACED[0], SHARE),
    _window("share of plateau, smooth curve", PACED[1], SHARE),
    _window("share of rise", replace(HINGE, shift=1.0), replace(SHARE, origin="first"), 0.9 * 9.3),
    _window("broken line, flat", HINGE, BrokenLine(), 9.3),
    _window("broken line, flat, faces differ in pace", PACED[0], BrokenLine()),
    _window("broken line, sloped", BETWEEN, BrokenLine(after="sloped"), 9.3),
    _window("broken line, sloped, break on a point", DRIFTING, BrokenLine(after="sloped"), 9.0),
    _window("exponential", APPROACH, ExponentialApproach(share=0.9), 4 * np.log(10)),
    _window("exponential, faces differ in pace", PACED[1], ExponentialApproach(share=0.9)),
    _lag("lag, broken line", HINGE, Study(Hinge(14.0)), BrokenLine(), 14.0 - 9.3),
    _lag("lag, share of plateau", HINGE, Study(Hinge(14.0)), SHARE, 0.9 * (14.0 - 9.3)),
    _drift("drift, from the peak it names", DRIFTING, from_named_peak=True),
    _drift("drift, from the population's peak", DRIFTING, from_named_peak=False),
    _drift("drift where there is none", HINGE, from_named_peak=False),
    _mean("mean", HINGE, 0.6),
    _detection("detection rate", HINGE),
    _detection("detection rate, faces differ", replace(HINGE, missing_icc=0.1)),
    _effect("paired effect", 0.028),
    _effect("d_z", 0.028, standardised=True),
    _effect("d_z, large", 0.2, standardised=True),
    _seconds("seconds an image", Timing(5.9, cold=1.5)),
    _faster("times faster", Timing(5.9, cold=1.5), Timing(1.0, spread=0.2, cold=1.5)),
)
"""Quantities with known values; the coverage table and the tests read this list."""
