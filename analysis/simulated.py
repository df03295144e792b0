"""Cases of known truth: a quantity, the study that it is estimated from, and many intervals of it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy import stats

from analysis.bands import Band
from analysis.bootstrap import (
    Bounds,
    ExpandedPercentile,
    Interval,
    JackknifeT,
    Means,
    Statistic,
    weighted_means,
)
from analysis.calls import average as mean_seconds
from analysis.calls import faster, seconds_an_image
from analysis.cells import average, detection_rate, face_means
from analysis.compare import compare
from analysis.crossed import crossed
from analysis.drift import drift, lag
from analysis.saturation import Estimator
from analysis.synthetic import Hinge, Study, Timing
from analysis.windows import saturation, window

WINDOW = ExpandedPercentile(resamples=999)
MEAN = JackknifeT()
Ends = Float[np.ndarray, "end=2 study"]
"""Lower and upper ends of the intervals of many simulated studies."""
Random = np.random.Generator
Simulated = Callable[[Random, int, Interval, int], Ends]
"""From generator, faces, interval and number of studies to the ends of their intervals."""


@dataclass(frozen=True)
class Percentile(ExpandedPercentile):
    """The percentile interval of the cluster bootstrap as it is usually taken, for comparison."""

    resamples: int = 999
    fewest: int = field(default=2, init=False, repr=False)

    def __call__(self, faces: Float[np.ndarray, "face *rest"], statistic: Statistic) -> Bounds:
        """The interval of `statistic`."""
        n, rng = len(faces), np.random.default_rng(self.seed)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=self.resamples).astype(float)
        draws = np.sort(statistic(weighted_means(drawn, faces)), 0)
        rank = int((self.resamples + 1) * (1 - self.level) / 2)
        estimate = statistic(weighted_means(np.ones((1, n)), faces))[0]
        return Bounds(estimate, draws[rank - 1], draws[-rank])


@dataclass(frozen=True)
class Case:
    """A quantity with a known value: `ends` simulates so many studies and gives their intervals.

    Number of faces and interval are arguments of `ends`, so that a table can vary them; `interval`
    is the recommended one. Latency has calls in place of faces, the first of them cold. own: the
    interval's name where the quantity has one of its own, of which `interval` gives the level alone;
    usual: what one would usually take instead, on the same draws, and its name, where that is not
    the percentile bootstrap.
    """

    name: str
    truth: float
    interval: Interval
    ends: Simulated
    own: str = ""
    usual: tuple[str, Simulated] | None = None

    def coverage(self, interval: Interval, *, faces: int, studies: int) -> float:
        """Share of `studies` whose interval holds the truth, 0 to 1; a fixed seed draws them."""
        return float(self.held(interval, faces=faces, studies=studies).mean())

    def held(
        self, interval: Interval, *, faces: int, studies: int, usual: bool = False
    ) -> Bool[np.ndarray, "study"]:
        """Whether each study's interval holds the truth; the draws are the same for every interval.

        usual: by the interval that one would usually take.
        """
        ends = self.usual[1] if usual and self.usual else self.ends
        low, high = ends(np.random.default_rng(faces), faces, interval, studies)
        return (low <= self.truth) & (self.truth <= high)


One = Callable[[Random, int, Interval], xr.Dataset]
"""A simulated study's `low` and `high`."""


def _each(study: One) -> Simulated:
    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        each = [study(rng, faces, interval) for _ in range(studies)]
        return np.array([[one["low"].item(), one["high"].item()] for one in each]).T

    return ends


def _one_by_one(
    name: str,
    truth: float,
    interval: Interval,
    study: One,
    own: str = "",
    usual: tuple[str, One] | None = None,
) -> Case:
    """A case whose estimator takes one study at a time."""
    other = None if usual is None else (usual[0], _each(usual[1]))
    return Case(name, truth, interval, _each(study), own, other)


def window_case(name: str, study: Study, estimator: Estimator, truth: float | None = None) -> Case:
    steps = np.arange(study.steps, dtype=float)
    known = estimator(study.population()[None], steps).position.item() if truth is None else truth

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return window(replace(study, faces=faces)(rng), estimator, interval, against="step")

    return _one_by_one(name, known, WINDOW, one)


def lag_case(name: str, identity: Study, other: Study, estimator: Estimator, truth: float) -> Case:
    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        first, second = (replace(study, faces=faces)(rng) for study in (identity, other))
        return lag(first, second, estimator, interval, against="step")

    return _one_by_one(name, truth, WINDOW, one)


def drift_case(name: str, study: Study, *, from_named_peak: bool) -> Case:
    """The fall from the peaks that the estimate names, or from the population's own."""
    known = study.population() - study.population()[-1]

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        found = drift(replace(study, faces=faces)(rng), interval)
        half = np.array([faces // 2, faces - faces // 2]) / faces  # each measured from the other's
        named = known[found["placed"].values.astype(int)] @ half
        return found[["low", "high"]] + (known.max() - named if from_named_peak else 0.0)

    return _one_by_one(name, known.max(), MEAN, one)


def seconds_case(name: str, run: Timing) -> Case:
    def one(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        return mean_seconds(seconds_an_image(replace(run, calls=calls)(rng)), level=interval.level)

    def student(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        seconds = seconds_an_image(replace(run, calls=calls)(rng)).seconds
        found = JackknifeT(interval.level)(seconds[:, None], lambda means: means)
        return xr.Dataset({"low": found.low[0], "high": found.high[0]})

    return _one_by_one(
        name, run.seconds, MEAN, one, "Student, calls as worth", ("Student, all calls", student)
    )


def faster_case(name: str, slow: Timing, fast: Timing) -> Case:
    def one(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        both = [seconds_an_image(replace(run, calls=calls)(rng)) for run in (slow, fast)]
        found = faster(*both, level=interval.level)
        # Where the denominator is not told from 0, Fieller's set has no end, and none is printed.
        return found.fillna({"low": -np.inf, "high": np.inf})

    return _one_by_one(name, slow.seconds / fast.seconds, MEAN, one, "Fieller, calls as worth")


def crossed_case(name: str, study: Study, estimator: Estimator | None = None) -> Case:
    """The mean of the last step, or a window, of studies whose prompts and seeds are drawn too."""
    steps = np.arange(study.steps, dtype=float)

    def quantity(means: Means) -> Float[np.ndarray, "resample"]:
        return means[:, -1] if estimator is None else saturation(estimator, means, steps).position

    def ours(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return crossed(replace(study, faces=faces)(rng), quantity, level=interval.level)

    def over_faces(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        each = face_means(replace(study, faces=faces)(rng)).mean
        found = (interval if estimator is None else WINDOW)(each, quantity)
        return xr.Dataset({"low": found.low, "high": found.high})

    truth = float(quantity(study.population()[None])[0])
    return _one_by_one(name, truth, MEAN, ours, "CrossedT", ("over faces", over_faces))


def band_case(name: str, study: Study) -> Case:
    """A whole mean curve: the band's least room to the truth, so that 0 is held where all of it is."""
    truth = study.population()

    def room(found: xr.Dataset) -> xr.Dataset:
        short = (found["low"] - truth).max(), (found["high"] - truth).min()
        return xr.Dataset({"low": short[0], "high": short[1]})

    def ours(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return room(Band(interval.level, 299)(replace(study, faces=faces)(rng)))

    def pointwise(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return room(average(replace(study, faces=faces)(rng), interval))

    return _one_by_one(name, 0.0, MEAN, ours, "Band", ("point by point", pointwise))


def _last(study: Study, rng: Random, faces: int, studies: int) -> xr.DataArray:
    """The last step of many studies, (sample, study)."""
    each = [replace(study, faces=faces)(rng).isel(step=-1, drop=True) for _ in range(studies)]
    values = np.stack([one.values for one in each], 1)
    return xr.DataArray(values, dims=("sample", "study"), coords=each[0].coords)


def mean_case(name: str, study: Study, truth: float) -> Case:
    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        found = average(_last(study, rng, faces, studies), interval)
        return np.stack([found["low"], found["high"]])

    return Case(name, truth, MEAN, ends)


def detection_case(name: str, study: Study) -> Case:
    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        found = detection_rate(_last(study, rng, faces, studies), level=interval.level)
        return np.stack([found["low"], found["high"]])

    def free(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        values = _last(study, rng, faces, studies)
        n, found = values.sizes["sample"], values.notnull().sum("sample").values
        each = [
            stats.binomtest(int(k), n).proportion_ci(interval.level, method="wilson") for k in found
        ]
        return np.array([[one.low, one.high] for one in each]).T

    name_, truth = "Wilson, effective size", 1 - study.missing
    return Case(name, truth, MEAN, ends, name_, ("Wilson, all samples", free))


def effect_case(name: str, effect: float, *, standardised: bool = False) -> Case:
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
