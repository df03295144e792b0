"""Prompt complexity: drift along the run, and identity by step and level.

The levels, from simple to style-conflicting, are our definition. (a) Drift, our definition: mean
similarity at the peak of the trajectory minus at its end, with the step of the peak taken from one half
of the faces and the fall from the other half, both ways; positive where identity falls after its
peak. Below the axis: the smallest drift that these faces detect with power 0.8. (b, c) Mean similarity
of the decoded x0 (aligned by the final image's keypoints) by step and level under both backbones, on one
scale; hatched where no face was found. Lines on the scale: another person's reference, dotted, and other
photos of the same person, dashed.
"""

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure

from stepscope.analysis.drift import drift
from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.figure4_streams import LEAST_WIDTH, colour_scale
from stepscope.analysis.figures.marks import bars, heatmap, key, look
from stepscope.analysis.figures.readings import chance_and_ceiling
from stepscope.analysis.figures.style import canvas, gap, panel
from stepscope.analysis.lookup import MissingEvidenceError
from stepscope.analysis.quantities import name, run_name
from stepscope.hooks.errors import StepscopeError

EXPERIMENTS = ("prompt_complexity",)


def draw(evidence: Evidence) -> Figure:
    """Drift on the left, the two heatmaps beside it."""
    runs = [evidence.one("prompt_complexity", backbone=b) for b in evidence.backbones]
    if not evidence.levels:
        raise MissingEvidenceError("the complexity level of each prompt is unknown")
    levels = list(dict.fromkeys(evidence.levels.values()))
    figure = canvas(2.3)
    parts = figure.subfigures(1, 2, width_ratios=[1, 1.75], squeeze=False)
    left, right = parts[0]
    drifts(evidence, left, runs, levels)
    longest = max(run.sizes["step"] for run in runs)
    widths = [max(run.sizes["step"], LEAST_WIDTH * longest) for run in runs]
    axes = right.subplots(1, len(runs), width_ratios=widths)
    maps = [by_level(evidence, run, levels) for run in runs]
    scale = colour_scale(np.concatenate([m.ravel() for m in maps]), log=False)
    scale.vmin = min(0.0, *(float(np.nanmin(m, initial=0.0)) for m in maps))
    for one, run, values, letter in zip(axes, runs, maps, "bc", strict=True):
        heatmap(one, values, levels, scale)
        one.tick_params(labelleft=one is axes[0])
        one.set_xlabel("step")
        panel(one, letter, run_name(run).replace(", ", "\n"))
    ends = chance_and_ceiling(evidence, runs[0])
    scale.vmax = max(scale.vmax or 0.0, float(np.nanmax(ends, initial=0.0)) + 0.03)
    bar = right.colorbar(
        ScalarMappable(scale), ax=list(axes), label="cosine to the reference", pad=0.02
    )
    for end, style in zip(ends, (":", "--"), strict=True):
        if np.isfinite(end):
            bar.ax.axhline(end, color="white", ls=style, lw=1.0)
    return figure


def at_level(evidence: Evidence, run: xr.Dataset, level: str) -> xr.DataArray:
    """Similarity (sample, step) of the samples whose prompt has a level."""
    values = evidence.identity(run)
    return values.isel(
        sample=[evidence.levels.get(p) == level for p in values["prompt"].values.tolist()]
    )


def by_level(evidence: Evidence, run: xr.Dataset, levels: list[str]) -> np.ndarray:
    """Mean similarity (level, step)."""
    return np.stack(
        [evidence.average(at_level(evidence, run, one))["mean"].values for one in levels]
    )


def drifts(
    evidence: Evidence, figure: SubFigure, runs: list[xr.Dataset], levels: list[str]
) -> None:
    """Drift of each level under each backbone, with intervals."""
    axes = figure.subplots()
    panel(axes, "a", "drift: peak − end")
    detectable: list[float] = []
    try:
        for k, run in enumerate(runs):
            curves = [at_level(evidence, run, level) for level in levels]
            results = [drift(one, evidence.interval(one.isel(step=-1))) for one in curves]
            detectable += [float(r["detectable"]) for r in results]
            values = [[float(r[word]) for r in results] for word in ("drift", "low", "high")]
            places = np.arange(len(levels)) + (k - 0.5) * 0.24
            bars(axes, places, values, look(k), across=True, label=name(run.attrs["backbone"]))
    except StepscopeError as error:
        gap(axes, str(error))
        return
    axes.axvline(0, color="#999999", lw=0.6, zorder=0)
    axes.set_yticks(range(len(levels)), levels)
    axes.set_ylim(len(levels) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.set_xlabel(f"cosine\ndetectable with power 0.8: {smallest(detectable)}")
    key(figure, axes)


def smallest(detectable: list[float]) -> str:
    """The range over levels of the smallest detectable drifts, in words."""
    known = [value for value in detectable if np.isfinite(value)]
    return f"from {min(known):.2f} to {max(known):.2f}" if known else "none"
