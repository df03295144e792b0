"""Likeness to the picture that a style or an object adapter was given, over whole runs and along a run.

Cosines of DINOv2's class tokens and of CLIP's image embeddings, of the whole picture, and the distance of
Gram matrices of VGG's features (Gatys et al. 2016; it falls as the style comes near). First column: final
images of whole runs against their number of steps. Second and third: x0 along the run of the most steps,
against step and log-SNR, 2 ln(alpha / sigma) at the start of the step; a first step of noise alone is at
minus infinity, and left out. Shaded: interval over reference images; outlined: simultaneous band. Last
column: where the rise along the run ends, by the estimators of the early window (our definition), counted
from the value at the first step, for the cosine of unlike pictures is above 0: an arrow marks an interval
that extends beyond the run, a cross an estimator without a position and a curve whose last x0 is not surely
nearer than its first. x0 is blurred where the noise is high and comes nearer by denoising alone; no control
for that is measured, so that these ends are not yet a window of the adapter: its causal windows are.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepscope.analysis.budgets import budgets
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.likeness import (
    COSINES,
    DISTANCES,
    STEP,
    comes_nearer,
    estimators,
    finite,
    names_of,
    rising,
)
from stepscope.analysis.figures.likeness_words import CAVEAT, of_measure
from stepscope.analysis.figures.marks import curve, legend, look, plain, steps
from stepscope.analysis.figures.style import Look, canvas, gap, panel
from stepscope.analysis.figures.window_ends import window_ends
from stepscope.analysis.lookup import MissingEvidenceError, measured, setting
from stepscope.analysis.quantities import name

EXPERIMENTS = ("style_adapter", "object_adapter")
COLUMNS = ("", "x0 along a run", "against log-SNR", "the rise ends")


class Series(NamedTuple):
    """One measure of the runs of one condition. runs: with different numbers of steps."""

    measure: str
    label: str
    look: Look
    runs: Sequence[xr.Dataset]

    @property
    def longest(self) -> xr.Dataset:
        return max(self.runs, key=lambda run: run.sizes["step"])


def words(evidence: Evidence) -> str:
    """What the figure shows, in numbers; empty where nothing of it was measured."""
    paragraphs = []
    for experiment in EXPERIMENTS:
        runs = evidence.runs.get(experiment) or []
        every = (
            one
            for some in (COSINES, DISTANCES)
            for one in series(runs, some)
            if names_of(runs, some)
        )
        told = [of_measure(evidence, one.label, one.measure, one.runs) for one in every]
        if any(told):
            paragraphs.append(f"{name(experiment)}. {' '.join(filter(None, told))}")
    return " ".join([*paragraphs, CAVEAT]) if paragraphs else ""


def draw(evidence: Evidence) -> Figure:
    """Of each experiment that was made a row of cosines, and one of distances where they were measured."""
    made = [name for name in EXPERIMENTS if evidence.runs.get(name)] or EXPERIMENTS[:1]
    rows = []
    for experiment in made:
        runs = evidence.all(experiment)
        rows.append((experiment, series(runs, COSINES)))
        if names_of(runs, DISTANCES):
            rows.append((experiment, series(runs, DISTANCES)))
    figure = canvas(0.4 + 1.7 * len(rows))
    grid = figure.subplots(len(rows), len(COLUMNS), squeeze=False)
    for k, (axes, (experiment, found)) in enumerate(zip(grid, rows, strict=True)):
        for column, (one, title) in enumerate(zip(axes, COLUMNS, strict=True)):
            letter = chr(ord("a") + k * len(COLUMNS) + column)
            panel(one, letter, title if column else name(experiment))
        draw_row(evidence, list(axes), found)
    return figure


def series(runs: Sequence[xr.Dataset], measures: Mapping[str, str]) -> list[Series]:
    """A series for each condition and each measure of its runs; all measures where none was made."""
    found = []
    for condition, some in conditions(runs).items():
        for measure, label in (names_of(runs, measures) or measures).items():
            words = ", ".join([label, *([condition] if condition else [])])
            found.append(Series(measure, words, look(len(found)), some))
    return found


def conditions(runs: Sequence[xr.Dataset]) -> dict[str, list[xr.Dataset]]:
    """Runs by what they differ in besides their steps, in words: backbone, adapter, scale."""
    told = [
        (
            name(str(setting(run, "backbone"))),
            str(setting(run, "adapter.name")),
            f"α = {setting(run, 'adapter.scale')}",
        )
        for run in runs
    ]
    differs = [len({words[i] for words in told}) > 1 for i in range(3)]
    found: dict[str, list[xr.Dataset]] = {}
    for run, words in zip(runs, told, strict=True):
        key = ", ".join(word for word, yes in zip(words, differs, strict=True) if yes)
        found.setdefault(key, []).append(run)
    return found


def draw_row(evidence: Evidence, axes: Sequence[Axes], found: Sequence[Series]) -> None:
    """Whole runs, steps, log-SNR and window ends of some series that have one unit."""
    whole, along, against, ends = axes
    falls = found[0].measure in DISTANCES
    counts: set[int] = set()
    drawn: dict[str, tuple[xr.DataArray | None, Look]] = {}
    lacking: dict[str, None] = {}
    for one in found:
        try:
            values = budgets(evidence, one.runs, lambda run, m=one.measure: measured(run, m))
            counts |= set(values["budget"].values.tolist())
            curve(whole, values["budget"].values, evidence.average(values), one.look, one.label)
        except MissingEvidenceError as error:
            lacking[str(error)] = None
        try:
            run, values = one.longest, measured(one.longest, one.measure + STEP)
        except MissingEvidenceError as error:
            lacking[str(error)] = None
            continue
        mean = evidence.average(values)
        curve(along, values["step"].values, mean, one.look, one.label)
        if "log_snr" in run.coords:
            x, there = finite(run["log_snr"].values.astype(float), mean)
            curve(against, x, there, one.look, one.label)
        nearer = comes_nearer(evidence, values, one.measure)
        drawn[one.label] = rising(values, one.measure) if nearer else None, one.look
    for each in (whole, along, against):
        if not each.has_data():
            gap(each, next(iter(lacking), "the runs do not say what their scheduler was"))
        elif falls:
            each.set_yscale("log", nonpositive="clip")
            plain(each.yaxis)
    budget_axis(whole, counts)
    whole.set_ylabel("Gram distance" if falls else "cosine to reference")
    if drawn:
        steps(along, max(one.longest.sizes["step"] for one in found))
        against.set_xlabel("log-SNR at the step")
        ends.set_xlim(along.get_xlim())
        ends.set_xlabel("step")
        window_ends(evidence, ends, drawn, "step", estimators(evidence.share))
    else:
        gap(ends, next(iter(lacking), ""))
    if len(found) > 1:
        named = whole if whole.has_data() else along
        low, high = named.get_ylim()
        named.set_ylim(low, high + 0.17 * len(found) * (high - low))  # room above the curves
        legend(named, loc="upper left")


def budget_axis(axes: Axes, counts: set[int]) -> None:
    """Numbers of steps on a logarithmic axis, each named."""
    if not counts:
        return
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(counts), [str(count) for count in sorted(counts)], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(counts) / 1.2, max(counts) * 1.2)
    axes.set_xlabel("number of steps of a run")
