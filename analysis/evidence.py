"""Measured runs by experiment, backbone and setting, and the estimates that figures and tables share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from stepscope.analysis import cells
from stepscope.analysis.bands import Band
from stepscope.analysis.bootstrap import (
    ExpandedPercentile,
    Interval,
    JackknifeT,
    OneFace,
    Statistic,
)
from stepscope.analysis.compare import compare
from stepscope.analysis.crossed import crossed
from stepscope.analysis.lookup import MissingEvidenceError, measured, reread_samples, setting
from stepscope.analysis.margins import Margins
from stepscope.analysis.planted.result import Result
from stepscope.analysis.ratio import ratio
from stepscope.analysis.tally import Tally
from stepscope.probes.usage import says


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measured runs, and the choices with which they are analysed.

    runs: by experiment; each is a run's root and `analysis` groups in one dataset, with the run's
        attributes. baseline, swapped: names of the two backbones of the replacement.
    levels: complexity level of each prompt, in order from simple to conflicting (ours).
    judge: the recogniser that measures identity; None is the first that does not condition the adapter.
    share: of the plateau, at which the window ends, 0 to 1. level: nominal coverage of every interval,
        0 to 1. resamples: of every bootstrap.
    margins: bounds of the verdicts; figures need none.
    tally: counts the intervals over faces. causal: measured edited samples, by study and backbone.
    planted: results of the benchmark with known causes, where it was made.
    projections: of held-out samples on learned directions, by backbone: analysis/causal/projections.py.

    Similarities are cosines to the reference face, -1 to 1, NaN where no face was found. Every method that
    takes a run raises MissingEvidenceError for a variable that the run lacks.
    """

    runs: Mapping[str, Sequence[xr.Dataset]] = field(repr=False)
    baseline: str
    swapped: str
    levels: Mapping[str, str] = field(default_factory=dict, repr=False)
    judge: str | None = None
    share: float = 0.9
    level: float = 0.95
    resamples: int = 1999
    margins: Margins | None = None
    tally: Tally = field(default_factory=Tally, repr=False)
    causal: Mapping[tuple[str, str], xr.Dataset] = field(default_factory=dict, repr=False)
    planted: Sequence[Result] = field(default=(), repr=False)
    projections: Mapping[str, xr.Dataset] = field(default_factory=dict, repr=False)

    @property
    def backbones(self) -> tuple[str, str]:
        """The baseline and the swapped backbone."""
        return self.baseline, self.swapped

    @property
    def window_interval(self) -> Interval:
        """The interval of positions, at which a statistic has kinks."""
        return self.tally.of(ExpandedPercentile(level=self.level, resamples=self.resamples))

    def all(self, experiment: str, **settings: Any) -> list[xr.Dataset]:
        """Every run of an experiment with these settings; the name `a__b` is the setting `a.b`.

        Raises MissingEvidenceError for an experiment without runs.
        """
        if not self.runs.get(experiment):
            raise MissingEvidenceError(
                f"experiment {experiment!r} is not in this study: {says('paper')} "
                f"experiments=[{experiment}] makes it"
            )
        wanted = {name.replace("__", "."): value for name, value in settings.items()}
        return [
            run
            for run in self.runs[experiment]
            if all(setting(run, name) == value for name, value in wanted.items())
        ]

    def some(self, experiment: str, **settings: Any) -> list[xr.Dataset]:
        """`all`; raises MissingEvidenceError for no run."""
        runs = self.all(experiment, **settings)
        if not runs:
            raise MissingEvidenceError(f"no measured run of {experiment!r} has {_words(settings)}")
        return runs

    def one(self, experiment: str, **settings: Any) -> xr.Dataset:
        """The only run with these settings. Raises MissingEvidenceError for none and for several."""
        runs = self.all(experiment, **settings)
        if len(runs) != 1:
            raise MissingEvidenceError(
                f"{len(runs)} measured runs of {experiment!r} have {_words(settings)}; one is needed"
            )
        return runs[0]

    def recogniser(self, run: xr.Dataset) -> str:
        """Name of the judge. Raises MissingEvidenceError if the run was not measured with it."""
        names = measured(run, "final_similarity")["recogniser"].values.tolist()
        free = [n for n, c in zip(names, run["conditioning"].values, strict=True) if not c]
        judge = self.judge or next(iter(free), None)
        if judge not in names:
            raise MissingEvidenceError(f"recogniser {judge!r} did not measure this run: {names}")
        return str(judge)

    def identity(self, run: xr.Dataset, alignment: str = "fixed") -> xr.DataArray:
        """Similarity (sample, step) of x0 under the judge.

        alignment: `fixed`, by the final image's keypoints, so that early and late steps are comparable, or
        `detected`, by the step's own.
        """
        values = measured(run, "similarity")
        one = values.sel(recogniser=self.recogniser(run), alignment=alignment)
        return one.drop_vars(["recogniser", "conditioning", "alignment"])

    def carried(self, run: xr.Dataset, alignment: str = "fixed") -> xr.DataArray:
        """Similarity (sample, step) of x0 with the adapter off for that evaluation."""
        values = self._judged(run, "carried_similarity").sel(alignment=alignment, drop=True)
        return reread_samples(values, run, "carried_x0")

    def other_face(
        self, run: xr.Dataset, toward: str = "own", alignment: str = "fixed"
    ) -> xr.DataArray:
        """Similarity (sample, step) of x0 with another person's face for that evaluation.

        toward: `own`, to the run's reference, or `other`, to the person whose face was given.
        """
        values = self._judged(run, "swapped_similarity")
        chosen = values.sel(alignment=alignment, toward=toward, drop=True)
        return reread_samples(chosen, run, "swapped_x0")

    def committed(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample, adapter_steps) of final images with the adapter off from a step to the end.

        adapter_steps: number of first steps with the adapter, unevenly spaced from 0 to all; sigma: the
        noise level at which it was switched off, 0 to 1.
        """
        values = reread_samples(self._judged(run, "committed_similarity"), run, "committed_latents")
        return values.rename(off_from="adapter_steps", off_sigma="sigma")

    def blur_null(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample, step) of the final image, blurred to the sharpness of x0 at the step."""
        return self._judged(run, "null_similarity")

    def chance(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample) of the reference to other people's; NaN for a run of one person."""
        return self._judged(run, "chance")

    def ceiling(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample) of the reference to other photos of the person; NaN without such photos."""
        return self._judged(run, "ceiling")

    def way(self, values: xr.DataArray, run: xr.Dataset) -> xr.DataArray:
        """Similarities (...) as a share of the way from chance (0) to ceiling (1), both means over faces.

        NaN where chance or ceiling is unknown; outside 0 to 1 for similarities outside the two.
        """
        low, high = (
            float(self.average(ends)["mean"]) for ends in (self.chance(run), self.ceiling(run))
        )
        return ((values - low) / (high - low)).assign_attrs(units="1", long_name="share of the way")

    def _judged(self, run: xr.Dataset, name: str) -> xr.DataArray:
        values = measured(run, name).sel(recogniser=self.recogniser(run))
        return values.drop_vars(["recogniser", "conditioning"], errors="ignore")

    def endpoint(self, run: xr.Dataset, recogniser: str | None = None) -> xr.DataArray:
        """Similarity (sample) of the final image under a recogniser; None is the judge."""
        values, who = measured(run, "final_similarity"), recogniser or self.recogniser(run)
        if who not in values["recogniser"].values:
            raise MissingEvidenceError(
                f"recogniser {who!r} did not measure the run of {setting(run, 'backbone')}"
            )
        one = values.sel(recogniser=who)
        return one.drop_vars(["recogniser", "conditioning"])

    def interval(self, *values: xr.DataArray) -> Interval:
        """The interval of means of these values: Student's over faces, or none for fewer than two faces."""
        enough = all(len(np.unique(v["face"].values[_any_finite(v)])) > 1 for v in values)
        return self.tally.of(JackknifeT(self.level)) if enough else OneFace()

    def average(self, values: xr.DataArray) -> xr.Dataset:
        """`cells.average` of values (sample, ...); the bounds are NaN for fewer than two faces.

        A curve (sample, point) also has `band_low` and `band_high`, a simultaneous band.
        """
        interval = self.interval(values)
        found = cells.average(values, interval)
        if values.ndim == 2 and not isinstance(interval, OneFace):
            band = Band(self.level, self.resamples)(values)
            found = found.assign(band_low=band["low"], band_high=band["high"])
        return found

    def effect(self, baseline: xr.DataArray, changed: xr.DataArray) -> xr.Dataset:
        """`compare.compare` of values (sample); the bounds are NaN for fewer than two faces."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return compare(baseline, changed, self.interval(baseline, changed))

    def detection(self, values: xr.DataArray) -> xr.Dataset | None:
        """`cells.detection_rate` of values (sample, ...); None for a single face."""
        if len(np.unique(values["face"].values)) < 2:
            return None
        found = cells.detection_rate(values, level=self.level)
        self.tally.add("Wilson", found["low"], found["high"])
        return found

    def ratio(self, above: xr.DataArray, below: xr.DataArray) -> xr.Dataset:
        """`ratio.ratio` of the means over faces of two quantities (sample).

        Raises StepscopeError where no face has both.
        """
        means = [cells.face_means(values) for values in (above, below)]
        faces = sorted({*means[0].faces} & {*means[1].faces})
        each = [m.mean[np.searchsorted(m.faces, faces)] for m in means]
        found = ratio(each[0], each[1], level=self.level)
        self.tally.add("Fieller", found["low"], found["high"])
        return found

    def crossed(
        self, values: xr.DataArray, statistic: Statistic = lambda means: means
    ) -> xr.Dataset:
        """`crossed.crossed` of values (sample, ...): an interval over faces, prompts and seeds."""
        found = crossed(values, statistic, level=self.level)
        self.tally.add("crossed", found["low"], found["high"])
        return found


IDENTITY: Mapping[str, Callable[[Evidence, xr.Dataset], xr.DataArray]] = {
    "as predicted": lambda evidence, run: evidence.identity(run),
    "carried by the latents": lambda evidence, run: evidence.carried(run),
    "committed": lambda evidence, run: evidence.committed(run),
}
"""The three identity curves of a run: (sample, step), `committed` (sample, adapter_steps)."""


def _any_finite(values: xr.DataArray) -> np.ndarray:
    """Which samples (sample,) have a value."""
    finite = np.isfinite(values.transpose("sample", ...).values.astype(float))
    return np.asarray(finite.any(tuple(range(1, finite.ndim))))


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k.replace('__', '.')}={v}" for k, v in settings.items())
