"""How much each adapter adds along the run, and when it is needed, over one another against log-SNR.

(a) Root mean square of |alpha r| / |h|, of the positive branch, over all places where the adapter adds
something; mean over faces or reference images, as a share of the curve's own maximum: shapes compare, sizes
do not. Of each adapter the run with the most steps, of InfuseNet those of both backbones. Shaded: bootstrap
of faces, pointwise, with the maximum taken anew each time. (b, c) Causal windows of the same runs, where
they were made: likeness of the final image with the adapter off from the step to the end, and off in one
bin of steps alone, as a share of the way from the run without the adapter (0) to the run itself (1), by the
judge of faces or, of a picture, by DINOv2 or CLIP; bars: Fieller's intervals; of a run of several adapters
all are off, in the look of its first; small letters: what has no share, or one of a cosine below
`verdict.least_lift`, of which none should be read. log-SNR is 2 ln(alpha / sigma) at the start of the step:
noise on the left. A first step of noise alone is at minus infinity, and left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.bootstrap import Means, too_few
from stepscope.analysis.causal.moved import LIKENESSES
from stepscope.analysis.causal.of_run import effects_of
from stepscope.analysis.causal.words import enough, of_little, surviving
from stepscope.analysis.cells import face_means
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import bars, curve, look
from stepscope.analysis.figures.style import QUIET, canvas, gap, panel
from stepscope.analysis.lookup import MissingEvidenceError, measured, setting
from stepscope.analysis.quantities import adapters, name, whole_contribution

EXPERIMENTS = ("trajectory", "adapters", "style_adapter", "object_adapter")
ADAPTER = "adapter.name"
PARTS = {"first steps": "off from the step on", "all but one step": "off in one bin of steps alone"}
"""Parts of the causal study, by what the figure calls them."""


class Course(NamedTuple):
    """One adapter of one run. label: as the key has it."""

    label: str
    run: xr.Dataset
    adapter: str


def words(evidence: Evidence) -> str:
    """Where each adapter adds most, and what its causal window shows; empty where none was recorded."""
    try:
        found = courses(evidence, every_run(evidence))
    except MissingEvidenceError:
        return ""
    return " ".join(f"{one.label}: {said(evidence, one)}." for one in found)


def said(evidence: Evidence, one: Course) -> str:
    """One adapter in words. Where a curve is largest says nothing of how flat it is."""
    where, steps = course(evidence, one)["mean"].values, one.run.sizes["step"]
    told = ["it adds nothing"]
    if np.isfinite(where).any():
        place = int(np.nanargmax(np.where(np.isfinite(one.run["log_snr"]), where, np.nan)))
        told = [
            f"adds most at step {place} of {steps}, log-SNR {float(one.run['log_snr'][place]):.1f}"
        ]
    try:
        first, off = (effects_of(evidence, one.run, part) for part in PARTS)
    except MissingEvidenceError:
        return told[0]
    what = "likeness to the picture" if first.attrs["judge"] in LIKENESSES else "identity"
    told.append(enough(evidence, first, steps, what))
    if of_little(evidence, first):
        return "; ".join(told)
    return "; ".join([*told, f"off there alone, it changes in {surviving(off, 'bins of steps')}"])


def draw(evidence: Evidence) -> Figure:
    """The runs of the most steps of each experiment that was made."""
    return of_runs(evidence, every_run(evidence))


def every_run(evidence: Evidence) -> list[xr.Dataset]:
    """Of each adapter that was run the run of the most steps: its base's; InfuseNet's of both backbones."""
    made = [name for name in EXPERIMENTS if evidence.runs.get(name)] or EXPERIMENTS[:1]
    by = {EXPERIMENTS[0]: "backbone"}
    return [run for name in made for run in longest(evidence.all(name), by.get(name, ADAPTER))]


def of_runs(evidence: Evidence, runs: Sequence[xr.Dataset]) -> Figure:
    """The adapters of these runs; `evidence` has the choices, and the causal studies.

    Raises MissingEvidenceError where no run has a contribution.
    """
    found = courses(evidence, runs)
    figure = canvas(4.4)
    (above,), (below,) = figure.subfigures(2, 1, height_ratios=[1.15, 1], squeeze=False)
    top, pair = above.subplots(), below.subplots(1, 2, sharey=True)
    panel(top, "a", "what the adapter adds")
    for k, one in enumerate(found):
        draw_course(evidence, top, one, k)
    top.set(ylabel="share of its maximum", ylim=(-0.03, 1.08))
    for axes, letter, (part, title) in zip(pair, "bc", PARTS.items(), strict=True):
        panel(axes, letter, title)
        draw_windows(evidence, axes, found, part)
        axes.set_xlim(top.get_xlim())
    pair[0].set_ylabel("share of likeness left")
    for axes in (top, *pair):
        axes.set_xlabel("log-SNR at the step")
    handles, labels = top.get_legend_handles_labels()
    above.legend(handles, labels, loc="outside right upper")
    return figure


def longest(runs: Sequence[xr.Dataset], by: str) -> list[xr.Dataset]:
    """Of each value of a setting the run of the most steps, and of those that of the largest scale."""
    best: dict[str, xr.Dataset] = {}
    for run in runs:
        value = str(setting(run, by))
        if value not in best or rank(run) > rank(best[value]):
            best[value] = run
    return list(best.values())


def rank(run: xr.Dataset) -> tuple[int, float]:
    """Steps, then the adapter's scale."""
    scale = setting(run, "adapter.scale")
    return run.sizes["step"], float(scale) if isinstance(scale, int | float) else 0.0


def label_of(run: xr.Dataset, own: str | None, adapter: str, alone: bool) -> str:
    """Backbone and adapter, and its part, as `controlnet`, where one adapter has several."""
    part = [] if own and alone else [adapter]
    named = [own] if own and not setting(run, "beside") else []
    return ", ".join(name(str(word)) for word in (setting(run, "backbone"), *named, *part))


def courses(evidence: Evidence, runs: Sequence[xr.Dataset]) -> list[Course]:
    """Every adapter of every run that has a contribution and log-SNR, named so that no two are alike.

    Raises MissingEvidenceError, what the last run lacks, where none has.
    """
    found, lacking = [], MissingEvidenceError("no run is named")
    for run in runs:
        try:
            every = adapters(run)
            measured(run, "log_snr")
        except MissingEvidenceError as error:
            lacking = error
            continue
        own = setting(run, ADAPTER)
        for adapter in every:
            found.append(Course(label_of(run, own, adapter, len(every) == 1), run, adapter))
    if not found:
        raise lacking
    labels = [one.label for one in found]
    return [
        one
        if labels.count(one.label) == 1
        else one._replace(label=f"{one.label}, {experiment_of(evidence, one.run)}")
        for one in found
    ]


def experiment_of(evidence: Evidence, run: xr.Dataset) -> str:
    """Which experiment a run is of, in words; its number of steps where it is of none."""
    for experiment in EXPERIMENTS:
        if any(run is one for one in evidence.runs.get(experiment, ())):
            return name(experiment)
    return f"{run.sizes['step']} steps"


def draw_course(evidence: Evidence, axes: Axes, one: Course, place: int) -> None:
    """One adapter's curve with its interval."""
    x = one.run["log_snr"].values.astype(float)
    here = np.isfinite(x)
    curve(axes, x[here], course(evidence, one).isel(step=here), look(place), one.label)


def course(evidence: Evidence, one: Course) -> xr.Dataset:
    """`mean`, `low`, `high` (step) of an adapter's contribution, as a share of the curve's own maximum.

    The maximum is over the steps that are drawn, of finite log-SNR. NaN of an adapter that adds nothing.
    """
    means = face_means(whole_contribution(one.run, one.adapter)).mean
    drawn = np.isfinite(one.run["log_snr"].values)

    def share(curves: Means) -> np.ndarray:
        most = np.nanmax(np.where(drawn, curves, -np.inf), 1, keepdims=True)
        return np.where(most > 0, curves / np.where(most > 0, most, 1), np.nan)

    found = evidence.window_interval(means, share)
    words = ("mean", "low", "high")
    return xr.Dataset(
        {word: ("step", values) for word, values in zip(words, found, strict=True)},
        attrs=too_few(evidence.window_interval, means),
    )


def draw_windows(evidence: Evidence, axes: Axes, found: Sequence[Course], part: str) -> None:
    """A causal window for every run of which the study was made; of others what is missing, in words."""
    made, lacking, blank = list[xr.Dataset](), "", list[str]()
    for level in (0, 1):
        axes.axhline(level, color="#999999", lw=0.6, zorder=0)
    for k, one in enumerate(found):
        if any(one.run is run for run in made):
            continue
        try:
            effect = effects_of(evidence, one.run, part)
        except MissingEvidenceError as error:
            lacking = lacking or str(error)
            blank.append(f"{one.label}: not made")
            continue
        x, values = left(one.run, effect)
        bars(axes, x, values, look(k), ls="-", lw=0.8, elinewidth=0.7)
        made.append(one.run)
        lift = float(np.abs(effect["lift"]).max())
        if not len(x):
            blank.append(f"{one.label}: no bin at a finite log-SNR")
        elif not np.isfinite(values[0]).any():
            blank.append(f"{one.label}: on and off do not surely differ")
        elif of_little(evidence, effect):
            blank.append(f"{one.label}: on and off differ by {lift:.3f} alone")
    if not made:
        gap(axes, lacking)
        return
    axes.set_ylim(-0.35 - 0.12 * len(blank), 1.35)
    axes.annotate(
        "\n".join(blank),
        (0, 0),
        (3, 2),
        "axes fraction",
        "offset points",
        fontsize=5.5,
        color=QUIET,
    )


def left(run: xr.Dataset, effect: xr.Dataset) -> tuple[np.ndarray, list[np.ndarray]]:
    """log-SNR, and `kept` with its bounds within the panel, of the cells with a finite one, in order."""
    x = run["log_snr"].values.astype(float)[effect["at"].values.astype(int)]
    order = np.argsort(x)
    order = order[np.isfinite(x[order])]
    words = ("kept", "kept_low", "kept_high")
    return x[order], [np.clip(effect[word].values, -0.6, 1.6)[order] for word in words]
