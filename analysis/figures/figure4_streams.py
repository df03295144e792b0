"""Identity, sharpness, contrast and the streams inside the model over a run.

Means over faces against sigma. (a1) Identity in the estimate x0 (aligned by the final image's keypoints);
grey: its blur null, the final image blurred to the sharpness of x0; (a2) share of frames with a face
(Wilson's interval); (a3) sharpness of the face, the variance of the Laplacian of x0 at a fixed size,
which the null matches by construction; (a4) RMS contrast of the face; grey: the null's. Text over image
norm, our definition: root mean square per token of the attention output before its gate, (b1) in double
blocks, after the output projection, and (b2) in single blocks, before it: the two are not comparable. It
measures text, not identity. Padding tokens are a separate stream where the run has one, else part of
text. (b3) Norm of the image tokens after a block, mean over blocks, and without its few largest channels
where recorded. (c, d) The ratio by block and step, each kind of block on its own scale; (e, f) norm of
the adapter's residual over that of the stream to which it is added, |alpha r| / |h|; zero in blocks
without residual.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import curve, heatmap, key, look, plain
from stepscope.analysis.figures.readings import NULL, READINGS, reference_lines
from stepscope.analysis.figures.style import Look, canvas, gap, panel
from stepscope.analysis.lookup import MissingEvidenceError, measured
from stepscope.analysis.quantities import (
    contrast,
    contribution,
    norm_ratio,
    null_contrast,
    run_name,
    sharpness,
)

EXPERIMENTS = ("trajectory",)
LEAST_WIDTH = 0.34  # of a heatmap, as a share of the longest run's width
Quantity = Callable[[xr.Dataset], xr.DataArray]


def draw(evidence: Evidence) -> Figure:
    """Curves above, pairs of heatmaps below."""
    runs = [evidence.one("trajectory", backbone=b) for b in evidence.backbones]
    figure = canvas(7.0)
    (above,), (middle,), (below,) = figure.subfigures(
        3, 1, height_ratios=[1.05, 1, 1.75], squeeze=False
    )
    images(evidence, above, runs)
    norms(evidence, middle, runs)
    heatmaps(below, runs)
    return figure


def images(evidence: Evidence, figure: SubFigure, runs: Sequence[xr.Dataset]) -> None:
    """Four quantities of the decoded estimates against sigma."""
    axes = figure.subplots(1, 4)
    quantities: tuple[tuple[str, Quantity, Quantity | None], ...] = (
        ("identity in x0 (cosine)", evidence.identity, evidence.blur_null),
        ("frames with a face", lambda run: evidence.identity(run, "detected"), None),
        ("sharpness of the face", sharpness, None),
        ("contrast of the face", contrast, null_contrast),
    )
    for k, (title, quantity, null) in enumerate(quantities):
        panel(axes[k], f"a{k + 1}", title)
        for i, run in enumerate(runs):
            draw_mean(evidence, axes[k], run, quantity, look(i), detection=k == 1)
            if null is not None:
                draw_null(evidence, axes[k], run, null, label=i == 0 and k == 0)
    reference_lines(evidence, axes[0], runs[0])
    over_sigma(axes)
    key(figure, axes[0])
    axes[1].set_ylim(-0.03, 1.05)
    axes[0].set_ylim(-0.05, 1.08)


def norms(evidence: Evidence, figure: SubFigure, runs: Sequence[xr.Dataset]) -> None:
    """The streams' ratio, kinds of block apart, and the residual stream's norm."""
    kinds = list(dict.fromkeys(k for run in runs for k in kinds_of(run)))
    axes = figure.subplots(1, len(kinds) + 1, squeeze=False)[0]
    for k, kind in enumerate(kinds):
        panel(axes[k], f"b{k + 1}", f"text / image norm, {kind} blocks")
        for i, run in enumerate(runs):
            for stream, line in (("text", "-"), ("padding", ":")):
                if stream not in run["stream"].values:
                    continue
                drawn = Look(look(i).colour, line, look(i).marker)

                def mean(r: xr.Dataset, s: str = stream, t: str = kind) -> xr.DataArray:
                    return of_kind(norm_ratio(r, s), t).mean("block")

                draw_mean(evidence, axes[k], run, mean, drawn)
    last = axes[-1]
    panel(last, f"b{len(kinds) + 1}", "norm after a block, image")
    for i, run in enumerate(runs):
        for variable, line, word in (
            ("residual_norm", "-", "whole"),
            ("residual_norm_without_massive", "--", "without its largest channels"),
        ):
            if variable not in run:
                continue
            drawn = Look(look(i).colour, line, look(i).marker)
            label = f"{run_name(run)}, {word}"
            draw_mean(evidence, last, run, lambda r, v=variable: residual(r, v), drawn, label=label)
    if not last.get_legend_handles_labels()[1]:
        gap(last, "the residual stream's norm was not recorded")
    else:
        last.set_yscale("log")
        plain(last.yaxis)
        if any("residual_norm_without_massive" in run for run in runs):
            line_legend(last, {"-": "whole", "--": "without its largest channels"})
    over_sigma(axes)
    if any("padding" in run["stream"].values for run in runs):
        line_legend(axes[0], {"-": "text tokens", ":": "padding tokens"})


def line_legend(axes: Axes, words: Mapping[str, str]) -> None:
    """A legend of line styles."""
    axes.legend([axes.plot([], [], color="#555555", ls=s)[0] for s in words], list(words.values()))


def over_sigma(axes: Iterable[Axes]) -> None:
    """From noise on the left to the image on the right."""
    for one in axes:
        if one.get_lines():
            one.set_xlim(1.02, -0.02)
            one.set_xlabel("noise level σ")


def draw_mean(
    evidence: Evidence,
    axes: Axes,
    run: xr.Dataset,
    quantity: Quantity,
    drawn: Look,
    *,
    detection: bool = False,
    label: str | None = None,
) -> None:
    """One run's mean curve of a quantity (sample, step); a note where it was not measured."""
    try:
        values = quantity(run)
        mean = evidence.detection(values) if detection else evidence.average(values)
    except MissingEvidenceError as error:
        return gap(axes, str(error))
    if mean is None:
        return gap(axes, "one face: no rate over faces")
    mean = mean.rename({"rate": "mean"}) if detection else mean
    return curve(axes, run["sigma"].values, mean, drawn, label or run_name(run))


def draw_null(
    evidence: Evidence, axes: Axes, run: xr.Dataset, null: Quantity, *, label: bool
) -> None:
    """The mean curve of the blur null, in grey; nothing where it was not measured."""
    try:
        mean = evidence.average(null(run))
    except MissingEvidenceError:
        return
    words = NULL if label else "_"
    curve(axes, run["sigma"].values, mean, READINGS[NULL][1], words, faint=True)


def kinds_of(run: xr.Dataset) -> list[str]:
    """Kinds of block, in order: `double` and `single` in FLUX."""
    return list(dict.fromkeys(str(name).partition(".")[0] for name in run["block"].values))


def of_kind(values: xr.DataArray, kind: str) -> xr.DataArray:
    """A quantity (..., block) in the blocks of one kind."""
    return values.isel(block=[str(n).startswith(f"{kind}.") for n in values["block"].values])


def residual(run: xr.Dataset, variable: str) -> xr.DataArray:
    """Norm (sample, step) of the image tokens of the residual stream, mean over blocks."""
    norms = measured(run, variable).sel(branch="positive", stream="image", drop=True)
    return norms.mean("block")


def heatmaps(figure: SubFigure, runs: Sequence[xr.Dataset]) -> None:
    """Two pairs, each with a row for every kind of block: the norm ratio and the adapter's contribution."""
    longest = max(run.sizes["step"] for run in runs)
    widths = [max(run.sizes["step"], LEAST_WIDTH * longest) for run in runs]
    sides = figure.subfigures(1, 2, squeeze=False)[0]
    kinds = kinds_of(runs[0])
    heights = [max(2, len(of_kind(runs[0]["block"], kind))) for kind in kinds]
    quantities = (
        ("text / image", norm_ratio, "cd"),
        ("contribution |αr|/|h|", contribution, "ef"),
    )
    for side, (title, quantity, letters) in zip(sides, quantities, strict=True):
        axes = side.subplots(
            len(kinds), len(runs), width_ratios=widths, height_ratios=heights, squeeze=False
        )
        try:
            maps = [quantity(run).mean("sample").transpose("block", "step") for run in runs]
        except MissingEvidenceError as error:
            for one in axes[:-1].ravel():
                one.axis("off")
            for one in axes[-1]:
                gap(one, str(error))
            continue
        ratio = quantity is norm_ratio
        whole = colour_scale(np.concatenate([m.values.ravel() for m in maps]), log=ratio)
        for row, kind in enumerate(kinds):
            parts = [of_kind(m, kind) for m in maps]
            values = np.concatenate([p.values.ravel() for p in parts])
            scale = colour_scale(values, log=True) if ratio else whole
            for one, part in zip(axes[row], parts, strict=True):
                block_map(one, part, scale, labels=one is axes[row][0])
                one.tick_params(labelbottom=row == len(kinds) - 1)
            if ratio or row == 0:
                on = list(axes[row]) if ratio else axes.ravel().tolist()
                bar = side.colorbar(ScalarMappable(scale), ax=on, pad=0.02, shrink=0.95)
                bar.set_label(title, fontsize=6)
                if isinstance(scale, LogNorm):
                    plain(bar.ax.yaxis)
        for one, run, letter in zip(axes[0], runs, letters, strict=True):
            panel(one, letter, run_name(run).replace(", ", "\n"))
        for one in axes[-1]:
            one.set_xlabel("step")


def block_map(axes: Axes, values: xr.DataArray, scale: Normalize, *, labels: bool) -> None:
    """One heatmap (block, step): a backbone's blocks of one kind."""
    heatmap(axes, values.values, values["block"].values.tolist(), scale)
    axes.tick_params(labelleft=labels, labelsize=6)


def colour_scale(values: np.ndarray, *, log: bool) -> Normalize:
    """One scale for all values: logarithmic from the smallest to the largest, or linear from 0."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.1, 1.0)
    return LogNorm(max(low, 1e-6), max(high, 2e-6)) if log else Normalize(0, high or 1.0)
