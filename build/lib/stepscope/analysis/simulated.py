"""The cases of the coverage table: simulated studies of windows, curves, means, rates and seconds."""

from dataclasses import replace

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from stepscope.analysis.bands import Band
from stepscope.analysis.bootstrap import ExpandedPercentile, Interval, JackknifeT, Means
from stepscope.analysis.calls import average as mean_seconds
from stepscope.analysis.calls import faster, seconds_an_image
from stepscope.analysis.cells import average, detection_rate, face_means
from stepscope.analysis.compare import compare
from stepscope.analysis.coverage_case import Case, Ends, Random, case_of_one
from stepscope.analysis.crossed import crossed
from stepscope.analysis.drift import drift, lag
from stepscope.analysis.saturation import Estimator
from stepscope.analysis.synthetic import Hinge, Study, Timing
from stepscope.analysis.windows import saturation, window

WINDOW = ExpandedPercentile(resamples=999)
MEAN = JackknifeT()


def window_case(name: str, study: Study, estimator: Estimator, truth: float | None = None) -> Case:
    """End of the early window in steps; truth: None reads it from the population's mean curve."""
    steps = np.arange(study.steps, dtype=float)
    known = estimator(study.population()[None], steps).position.item() if truth is None else truth

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return window(replace(study, faces=faces)(rng), estimator, interval, against="step")

    return case_of_one(name, known, WINDOW, one)


def lag_case(name: str, identity: Study, other: Study, estimator: Estimator, truth: float) -> Case:
    """Lag in steps of `other` behind `identity`."""

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        first, second = (replace(study, faces=faces)(rng) for study in (identity, other))
        return lag(first, second, estimator, interval, against="step")

    return case_of_one(name, truth, WINDOW, one)


def drift_case(name: str, study: Study, *, from_named_peak: bool) -> Case:
    """Fall from the peak to the last step; the peak is the estimate's own choice or the population's."""
    known = study.population() - study.population()[-1]

    def one(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        fall = drift(replace(study, faces=faces)(rng), interval)
        half = np.array([faces // 2, faces - faces // 2]) / faces  # each measured from the other's
        from_peaks = known[fall["placed"].values.astype(int)] @ half
        return fall[["low", "high"]] + (known.max() - from_peaks if from_named_peak else 0.0)

    return case_of_one(name, known.max(), MEAN, one)


def seconds_case(name: str, run: Timing) -> Case:
    """Mean seconds an image of one run."""

    def one(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        return mean_seconds(seconds_an_image(replace(run, calls=calls)(rng)), level=interval.level)

    def student(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        seconds = seconds_an_image(replace(run, calls=calls)(rng)).seconds
        bounds = JackknifeT(interval.level)(seconds[:, None], lambda means: means)
        return xr.Dataset({"low": bounds.low[0], "high": bounds.high[0]})

    return case_of_one(
        name, run.seconds, MEAN, one, "Student, calls as worth", ("Student, all calls", student)
    )


def faster_case(name: str, slow: Timing, fast: Timing) -> Case:
    """Ratio of two runs' mean seconds an image."""

    def one(rng: Random, calls: int, interval: Interval) -> xr.Dataset:
        both = [seconds_an_image(replace(run, calls=calls)(rng)) for run in (slow, fast)]
        speedup = faster(*both, level=interval.level)
        # Where the denominator does not differ from 0, Fieller's set is unbounded and is not printed.
        return speedup.fillna({"low": -np.inf, "high": np.inf})

    return case_of_one(name, slow.seconds / fast.seconds, MEAN, one, "Fieller, calls as worth")


def crossed_case(name: str, study: Study, estimator: Estimator | None = None) -> Case:
    """The mean of the last step, or a window, of studies whose prompts and seeds are drawn too."""
    steps = np.arange(study.steps, dtype=float)

    def quantity(means: Means) -> Float[np.ndarray, "resample"]:
        return means[:, -1] if estimator is None else saturation(estimator, means, steps).position

    def ours(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return crossed(replace(study, faces=faces)(rng), quantity, level=interval.level)

    def over_faces(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        each = face_means(replace(study, faces=faces)(rng)).mean
        bounds = (interval if estimator is None else WINDOW)(each, quantity)
        return xr.Dataset({"low": bounds.low, "high": bounds.high})

    truth = float(quantity(study.population()[None])[0])
    return case_of_one(name, truth, MEAN, ours, "CrossedT", ("over faces", over_faces))


def band_case(name: str, study: Study) -> Case:
    """A whole mean curve. Its ends are the largest lower end minus the truth, and the smallest upper one.

    They enclose 0 exactly where the band holds the truth at every point.
    """
    truth = study.population()

    def distances(band: xr.Dataset) -> xr.Dataset:
        low, high = (band["low"] - truth).max(), (band["high"] - truth).min()
        return xr.Dataset({"low": low, "high": high})

    def ours(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return distances(Band(interval.level, 299)(replace(study, faces=faces)(rng)))

    def pointwise(rng: Random, faces: int, interval: Interval) -> xr.Dataset:
        return distances(average(replace(study, faces=faces)(rng), interval))

    return case_of_one(name, 0.0, MEAN, ours, "Band", ("point by point", pointwise))


def _last(study: Study, rng: Random, faces: int, studies: int) -> xr.DataArray:
    """Values (sample, study) of the last step of many studies."""
    each = [replace(study, faces=faces)(rng).isel(step=-1, drop=True) for _ in range(studies)]
    values = np.stack([one.values for one in each], 1)
    return xr.DataArray(values, dims=("sample", "study"), coords=each[0].coords)


def mean_case(name: str, study: Study, truth: float) -> Case:
    """Mean of the last step."""

    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        mean = average(_last(study, rng, faces, studies), interval)
        return np.stack([mean["low"], mean["high"]])

    return Case(name, truth, MEAN, ends)


def detection_case(name: str, study: Study) -> Case:
    """Share of samples with a face at the last step, 0 to 1."""

    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        rate = detection_rate(_last(study, rng, faces, studies), level=interval.level)
        return np.stack([rate["low"], rate["high"]])

    def free(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        values = _last(study, rng, faces, studies)
        n, faces_found = values.sizes["sample"], values.notnull().sum("sample").values
        each = [
            stats.binomtest(int(k), n).proportion_ci(interval.level, method="wilson")
            for k in faces_found
        ]
        return np.array([[one.low, one.high] for one in each]).T

    usual = ("Wilson, all samples", free)
    return Case(name, 1 - study.missing, MEAN, ends, "Wilson, effective size", usual)


def effect_case(name: str, effect: float, *, standardised: bool = False) -> Case:
    """Paired effect of a given size; standardised: divided by the SD of one pair's difference (d_z)."""
    between, within = 0.03, 0.1
    words = ("d_z_low", "d_z_high") if standardised else ("low", "high")

    def ends(rng: Random, faces: int, interval: Interval, studies: int) -> Ends:
        base = _last(Study(Hinge(9.0)), rng, faces, studies)
        face = rng.normal(0, between, (faces, studies)).repeat(len(base) // faces, axis=0)
        changed = base + effect + face + rng.normal(0, within, base.shape)
        result = compare(base, changed, interval)
        return np.stack([result[word] for word in words])

    truth = effect / np.hypot(between, within) if standardised else effect
    return Case(name, truth, MEAN, ends)
