"""How often the intervals hold the truth: every estimator on synthetic studies, in one list."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from analysis import calls as calls_
from analysis.bootstrap import ExpandedPercentile, Interval, JackknifeT
from analysis.calls import faster, seconds_an_image
from analysis.cells import average, detection_rate
from analysis.compare import compare
from analysis.drift import drift, lag
from analysis.saturation import BrokenLine, Estimator, ExponentialApproach, ShareOfPlateau
from analysis.synthetic import Approach, Hinge, Study, Timing
from analysis.windows import window

WINDOW = ExpandedPercentile(resamples=999)
MEAN = JackknifeT()
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """A quantity with a known value: `bounds` simulates one study and gives its interval.

    Number of faces and interval are arguments of `bounds`, so that a table can vary them;
    `interval` is the recommended one.
    """

    name: str
    truth: float
    interval: Interval
    bounds: Callable[[np.random.Generator, int, Interval], Bounds]

    def coverage(self, interval: Interval, *, faces: int, studies: int) -> float:
        """Share of `studies` whose interval holds the truth, 0 to 1; a fixed seed draws them."""
        rng = np.random.default_rng(faces)
        each = [self.bounds(rng, faces, interval) for _ in range(studies)]
        return float(np.mean([low <= self.truth <= high for low, high in each]))


def _ends(result: xr.Dataset, low: str = "low", high: str = "high") -> Bounds:
    return result[low].item(), result[high].item()


def _window(name: str, study: Study, estimator: Estimator, truth: float | None = None) -> Case:
    steps = np.arange(study.steps, dtype=float)
    known = estimator(study.population()[None], steps).position.item() if truth is None else truth

    def bounds(rng: np.random.Generator, faces: int, interval: Interval) -> Bounds:
        record = replace(study, faces=faces)(rng)
        return _ends(window(record, estimator, interval, against="step"))

    return Case(name, known, WINDOW, bounds)


def _lag(name: str, identity: Study, other: Study, estimator: Estimator, truth: float) -> Case:
    def bounds(rng: np.random.Generator, faces: int, interval: Interval) -> Bounds:
        first, second = (replace(study, faces=faces)(rng) for study in (identity, other))
        return _ends(lag(first, second, estimator, interval, against="step"))

    return Case(name, truth, WINDOW, bounds)


def _drift(name: str, study: Study, *, from_named_peak: bool) -> Case:
    """The fall from the peak that the estimate names, or from the population's own."""
    known = study.population() - study.population()[-1]

    def bounds(rng: np.random.Generator, faces: int, interval: Interval) -> Bounds:
        found = drift(replace(study, faces=faces)(rng), interval)
        beside = known.max() - known[int(found["peak"])] if from_named_peak else 0.0
        return found["low"].item() + beside, found["high"].item() + beside

    return Case(name, known.max(), MEAN, bounds)


def _mean(name: str, study: Study, truth: float) -> Case:
    def bounds(rng: np.random.Generator, faces: int, interval: Interval) -> Bounds:
        return _ends(average(replace(study, faces=faces)(rng).isel(step=-1), interval))

    return Case(name, truth, MEAN, bounds)


def _seconds(name: str, run: Timing) -> Case:
    """Calls in place of faces."""

    def bounds(rng: np.random.Generator, calls: int, interval: Interval) -> Bounds:
        seconds = seconds_an_image(replace(run, calls=calls)(rng))
        return _ends(calls_.average(seconds, level=interval.level))

    return Case(name, run.seconds, MEAN, bounds)


def _faster(name: str, slow: Timing, fast: Timing) -> Case:
    """Calls of each run in place of faces."""

    def bounds(rng: np.random.Generator, calls: int, interval: Interval) -> Bounds:
        both = [seconds_an_image(replace(run, calls=calls)(rng)) for run in (slow, fast)]
        return _ends(faster(*both, level=interval.level))

    return Case(name, slow.seconds / fast.seconds, MEAN, bounds)


def _detection(name: str, study: Study) -> Case:
    def bounds(rng: np.random.Generator, faces: int, interval: Interval) -> Bounds:
        last = replace(study, faces=faces)(rng).isel(step=-1)
        return _ends(detection_rate(last, level=interval.level))

    return Case(name, 1 - study.missing, MEAN, bounds)


def _effect(name: str, effect: float, *, standardised: bool = False) -> Case:
    between, within = 0.03, 0.1

    def bounds(rng: np.random.Generator, faces: int, interval: Interval) -> Bounds:
        base = Study(Hinge(9.0), faces=faces)(rng).isel(step=-1)
        face = np.repeat(rng.normal(0, between, faces), base.sizes["sample"] // faces)
        changed = base + effect + face + rng.normal(0, within, base.shape)
        result = compare(base, changed, interval)
        return _ends(result, "d_z_low", "d_z_high") if standardised else _ends(result)

    return Case(name, effect / np.hypot(between, within) if standardised else effect, MEAN, bounds)


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
    _seconds("seconds an image", Timing(5.9)),
    _faster("times faster", Timing(5.9), Timing(1.0, spread=0.2)),
)
"""Quantities with known values; the coverage table and the tests read this list."""
