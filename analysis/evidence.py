"""Measured runs as figures and tables ask for them: by experiment, backbone and setting."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from analysis import cells
from analysis.bands import Band
from analysis.bootstrap import (
    ExpandedPercentile,
    Interval,
    JackknifeT,
    OneFace,
    Statistic,
)
from analysis.compare import compare
from analysis.crossed import crossed
from analysis.margins import Margins
from analysis.metrics import METRICS
from analysis.ratio import ratio
from analysis.runs import recording
from analysis.tally import Tally
from hooks.errors import StepscopeError


class MissingEvidenceError(StepscopeError):
    """A run, or a measurement of it, that a figure needs is not there."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measured runs, and the choices with which they are read.

    runs: by experiment; each is a run's root and `analysis` groups in one dataset, with the run's
        attributes. baseline, swapped: names of the two backbones of the replacement.
    levels: complexity level of each prompt, in order from simple to conflicting (ours).
    judge: the recogniser that identity is read with; None is the first that conditions nothing.
    share: of the plateau, at which the window ends; level: of every interval, 0 to 1.
    margins: what verdicts hold the numbers against; figures need none.
    tally: of the intervals over faces that were made.
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

    @property
    def backbones(self) -> tuple[str, str]:
        """The baseline and what it is swapped for."""
        return self.baseline, self.swapped

    @property
    def window_interval(self) -> Interval:
        """For positions, which have kinks."""
        return self.tally.of(ExpandedPercentile(level=self.level, resamples=self.resamples))

    def all(self, experiment: str, **settings: Any) -> list[xr.Dataset]:
        """Every run of an experiment with these settings; a name `a__b` is the setting `a.b`."""
        if not self.runs.get(experiment):
            raise MissingEvidenceError(
                f"experiment {experiment!r} is not in this study: python -m analysis.paper "
                f"experiments=[{experiment}] makes it"
            )
        wanted = {name.replace("__", "."): value for name, value in settings.items()}
        return [
            run
            for run in self.runs[experiment]
            if all(setting(run, name) == value for name, value in wanted.items())
        ]

    def some(self, experiment: str, **settings: Any) -> list[xr.Dataset]:
        """`all`. Raises MissingEvidenceError where there is none."""
        found = self.all(experiment, **settings)
        if not found:
            told = ", ".join(f"{k.replace('__', '.')}={v}" for k, v in settings.items())
            raise MissingEvidenceError(f"no measured run of {experiment!r} has {told}")
        return found

    def one(self, experiment: str, **settings: Any) -> xr.Dataset:
        """The run of an experiment with these settings. Raises MissingEvidenceError unless it is one."""
        found = self.all(experiment, **settings)
        if len(found) != 1:
            told = ", ".join(f"{k.replace('__', '.')}={v}" for k, v in settings.items())
            raise MissingEvidenceError(
                f"{len(found)} measured runs of {experiment!r} have {told}; one is needed"
            )
        return found[0]

    def recogniser(self, run: xr.Dataset) -> str:
        """The judge. Raises MissingEvidenceError if the run was not measured with it."""
        names = measured(run, "final_similarity")["recogniser"].values.tolist()
        free = [n for n, c in zip(names, run["conditioning"].values, strict=True) if not c]
        judge = self.judge or next(iter(free), None)
        if judge not in names:
            raise MissingEvidenceError(f"recogniser {judge!r} did not measure this run: {names}")
        return str(judge)

    def identity(self, run: xr.Dataset, alignment: str = "fixed") -> xr.DataArray:
        """Similarity (sample, step) under the judge; `fixed` compares early steps with late ones."""
        values = measured(run, "similarity")
        one = values.sel(recogniser=self.recogniser(run), alignment=alignment)
        return one.drop_vars(["recogniser", "conditioning", "alignment"])

    def carried(self, run: xr.Dataset, alignment: str = "fixed") -> xr.DataArray:
        """Similarity (sample, step) of x0 with the adapter off for that evaluation."""
        values = self._judged(run, "carried_similarity").sel(alignment=alignment, drop=True)
        return again(values, run, "carried_x0")

    def other_face(
        self, run: xr.Dataset, toward: str = "own", alignment: str = "fixed"
    ) -> xr.DataArray:
        """Similarity (sample, step) of x0 with another person's face for that evaluation.

        toward: `own`, to the run's reference, or `other`, to the person whose face was given.
        """
        values = self._judged(run, "swapped_similarity")
        chosen = values.sel(alignment=alignment, toward=toward, drop=True)
        return again(chosen, run, "swapped_x0")

    def committed(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample, adapter_steps) of final images with the adapter off from a step to the end.

        adapter_steps: how many of the first steps had it, unevenly spaced from 0 to all; `sigma`: the
        noise level at which it was switched off. NaN where no face was found.
        """
        values = again(self._judged(run, "committed_similarity"), run, "committed_latents")
        return values.rename(off_from="adapter_steps", off_sigma="sigma")

    def blur_null(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample, step) of the final image, blurred to x0's sharpness at the step."""
        return self._judged(run, "null_similarity")

    def chance(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample) of the reference to other people's; NaN where there is no other."""
        return self._judged(run, "chance")

    def ceiling(self, run: xr.Dataset) -> xr.DataArray:
        """Similarity (sample) of the reference to other photos of the person; NaN where there are none."""
        return self._judged(run, "ceiling")

    def way(self, values: xr.DataArray, run: xr.Dataset) -> xr.DataArray:
        """Similarities as shares of the way from chance (0) to ceiling (1), both means over faces.

        NaN where either is not known.
        """
        low, high = (
            float(self.average(ends)["mean"]) for ends in (self.chance(run), self.ceiling(run))
        )
        return ((values - low) / (high - low)).assign_attrs(units="1", long_name="share of the way")

    def _judged(self, run: xr.Dataset, name: str) -> xr.DataArray:
        values = measured(run, name).sel(recogniser=self.recogniser(run))
        return values.drop_vars(["recogniser", "conditioning"], errors="ignore")

    def endpoint(self, run: xr.Dataset, recogniser: str | None = None) -> xr.DataArray:
        """Similarity (sample) of the final image, NaN where no face was found."""
        values, who = measured(run, "final_similarity"), recogniser or self.recogniser(run)
        if who not in values["recogniser"].values:
            raise MissingEvidenceError(
                f"recogniser {who!r} did not measure the run of {setting(run, 'backbone')}"
            )
        one = values.sel(recogniser=who)
        return one.drop_vars(["recogniser", "conditioning"])

    def interval(self, *values: xr.DataArray) -> Interval:
        """For means: Student's over faces; none where fewer than two faces have a value."""
        enough = all(len(np.unique(v["face"].values[_any(v)])) > 1 for v in values)
        return self.tally.of(JackknifeT(self.level)) if enough else OneFace()

    def average(self, values: xr.DataArray) -> xr.Dataset:
        """`cells.average`; without bounds where fewer than two faces were measured.

        A curve (sample, one dimension) also has `band_low` and `band_high`, which hold all of it at
        once: what curves are compared by.
        """
        interval = self.interval(values)
        found = cells.average(values, interval)
        if values.ndim == 2 and not isinstance(interval, OneFace):
            band = Band(self.level, self.resamples)(values)
            found = found.assign(band_low=band["low"], band_high=band["high"])
        return found

    def effect(self, baseline: xr.DataArray, changed: xr.DataArray) -> xr.Dataset:
        """`compare.compare`; without bounds where fewer than two faces were measured."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return compare(baseline, changed, self.interval(baseline, changed))

    def detection(self, values: xr.DataArray) -> xr.Dataset | None:
        """`cells.detection_rate`; None for a single face."""
        if len(np.unique(values["face"].values)) < 2:
            return None
        found = cells.detection_rate(values, level=self.level)
        self.tally.add("Wilson", found["low"], found["high"])
        return found

    def ratio(self, above: xr.DataArray, below: xr.DataArray) -> xr.Dataset:
        """`ratio.ratio` of the means over faces of two quantities (sample)."""
        means = [cells.face_means(values) for values in (above, below)]
        faces = sorted({*means[0].faces} & {*means[1].faces})
        each = [m.mean[np.searchsorted(m.faces, faces)] for m in means]
        found = ratio(each[0], each[1], level=self.level)
        self.tally.add("Fieller", found["low"], found["high"])
        return found

    def crossed(
        self, values: xr.DataArray, statistic: Statistic = lambda means: means
    ) -> xr.Dataset:
        """`crossed.crossed`: faces, prompts and seeds drawn."""
        found = crossed(values, statistic, level=self.level)
        self.tally.add("crossed", found["low"], found["high"])
        return found


IDENTITY: Mapping[str, Callable[[Evidence, xr.Dataset], xr.DataArray]] = {
    "as predicted": lambda evidence, run: evidence.identity(run),
    "carried by the latents": lambda evidence, run: evidence.carried(run),
    "committed": lambda evidence, run: evidence.committed(run),
}
"""The three identity curves of a run, by the names that are theirs alone: (sample, step), the last
(sample, adapter_steps)."""


def again(values: xr.DataArray, run: xr.Dataset, source: str) -> xr.DataArray:
    """Of measurements of a reading, the samples that were read again."""
    if source not in run:
        return values
    asked = set(run[source].attrs["samples"])
    return values.isel(sample=[s in asked for s in values["sample"].values.tolist()])


def setting(run: xr.Dataset, name: str) -> Any:
    """A value of the run's resolved configuration, e.g. `adapter.scale`; `backbone` is its name."""
    found: Any = run.attrs["configuration"]
    for word in {"backbone": "backbone.name"}.get(name, name).split("."):
        found = found.get(word) if isinstance(found, Mapping) else None
    return found


def measured(run: xr.Dataset, name: str) -> xr.DataArray:
    """A variable with the cell's coordinates. Raises MissingEvidenceError if it was not measured."""
    if name not in run:
        raise MissingEvidenceError(
            f"{name} is not in the run of {setting(run, 'backbone')}, {setting(run, 'steps')} steps: "
            f"{mended(run, name)}"
        )
    return run[name]


def mended(run: xr.Dataset, name: str) -> str:
    """What gives a run a variable that it lacks: the metric that measures it, or another recording."""
    path = run.attrs.get("path", "...")
    by = [kind.name for kind in METRICS.values() if name in kind().quantities(run)]
    if by:
        return f"python -m analysis runs=[{path}] metrics=[{by[0]}] measures it"
    return f"it was not recorded; {recording(run.attrs, path)} made the run"


def budgets(evidence: Evidence, runs: Sequence[xr.Dataset]) -> xr.DataArray:
    """Endpoints of runs with different step counts: (sample, budget), for the cells of all of them."""
    runs = sorted(runs, key=lambda run: setting(run, "steps"))
    ends = [evidence.endpoint(run) for run in runs]
    keys = [cells.cell_keys(end) for end in ends]
    common = [key for key in keys[0] if all(key in others for others in keys[1:])]
    rows = [
        end.isel(sample=[k.index(key) for key in common]).drop_vars("sample", errors="ignore")
        for end, k in zip(ends, keys, strict=True)
    ]
    joined = xr.concat(rows, "budget", coords="minimal", compat="override", join="override")
    steps = [int(setting(run, "steps")) for run in runs]
    sigma = [float(run["sigma"].values[-1]) for run in runs]
    return joined.transpose("sample", "budget").assign_coords(budget=steps, sigma=("budget", sigma))


def _any(values: xr.DataArray) -> np.ndarray:
    found = np.isfinite(values.transpose("sample", ...).values.astype(float))
    return np.asarray(found.any(tuple(range(1, found.ndim))))
