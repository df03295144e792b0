"""Identity, sharpness and the streams inside the model over a run.

(a) Means over faces against sigma: similarity of the decoded x0 (final image's keypoints fixed),
share of frames with a face (Wilson's interval), sharpness of the face (variance of the Laplacian of
x0 at a fixed size), and the norm ratio. (b, c) Norm ratio by block and step under both backbones:
text over image, root mean square per token of the attention output before its gate; our definition.
It measures text, not identity. (d, e) What the adapter adds after each block over what it is added
to, |alpha r| / |h|; zero in blocks without residual. Each pair shares one colour scale.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure

from analysis.evidence import Evidence, MissingEvidenceError
from analysis.figures.marks import curve, heatmap, key, look, plain, steps
from analysis.figures.style import Look, canvas, gap, panel
from analysis.quantities import contribution, norm_ratio, run_name, sharpness

EXPERIMENTS = ("trajectory",)
LEAST_WIDTH = 0.34  # of a heatmap, for runs of few steps, as a share of the longest run's


def draw(evidence: Evidence) -> Figure:
    """Curves above, pairs of heatmaps below."""
    runs = [evidence.one("trajectory", backbone=b) for b in evidence.backbones]
    figure = canvas(5.0)
    (above,), (below,) = figure.subfigures(2, 1, height_ratios=[1, 1.5], squeeze=False)
    over_sigma(evidence, above, runs)
    heatmaps(below, runs)
    return figure


def over_sigma(evidence: Evidence, figure: SubFigure, runs: list[xr.Dataset]) -> None:
    """Four quantities against sigma."""
    axes = figure.subplots(1, 4)
    quantities: tuple[tuple[str, Callable[[xr.Dataset], xr.DataArray]], ...] = (
        ("identity (cosine)", evidence.identity),
        ("frames with a face", lambda run: evidence.identity(run, "detected")),
        ("sharpness of the face", sharpness),
        ("text / image norm", lambda run: norm_ratio(run).mean("block")),
    )
    for k, (title, quantity) in enumerate(quantities):
        panel(axes[k], f"a{k + 1}", title)
        axes[k].set_xlim(1.02, 0.0)
        axes[k].set_xlabel("noise level σ")
        for i, run in enumerate(runs):
            draw_one(evidence, axes[k], run, quantity, look(i), detection=k == 1)
    key(figure, axes[0])
    axes[1].set_ylim(-0.03, 1.05)


def draw_one(
    evidence: Evidence,
    axes: Axes,
    run: xr.Dataset,
    quantity: Callable[[xr.Dataset], xr.DataArray],
    drawn: Look,
    *,
    detection: bool,
) -> None:
    """One run's curve of one quantity."""
    try:
        values = quantity(run)
        mean = evidence.detection(values) if detection else evidence.average(values)
    except MissingEvidenceError as error:
        return gap(axes, str(error))
    if mean is None:
        return gap(axes, "one face: no rate over faces")
    mean = mean.rename({"rate": "mean"}) if detection else mean
    return curve(axes, run["sigma"].values, mean, drawn, run_name(run))


def heatmaps(figure: SubFigure, runs: list[xr.Dataset]) -> None:
    """Two pairs: the norm ratio and the adapter's contribution; each pair on one colour scale."""
    longest = max(run.sizes["step"] for run in runs)
    widths = [max(run.sizes["step"], LEAST_WIDTH * longest) for run in runs]
    sides = figure.subfigures(1, 2, squeeze=False)[0]
    quantities = (
        ("text / image norm", norm_ratio, "bc"),
        ("adapter's contribution |αr|/|h|", contribution, "de"),
    )
    for side, (title, quantity, letters) in zip(sides, quantities, strict=True):
        axes = side.subplots(1, len(runs), width_ratios=widths)
        try:
            maps = [quantity(run).mean("sample").transpose("block", "step") for run in runs]
        except MissingEvidenceError as error:
            for one in axes:
                gap(one, str(error))
            continue
        scale = colour_scale(
            np.concatenate([m.values.ravel() for m in maps]), log=quantity is norm_ratio
        )
        for one, run, values, letter in zip(axes, runs, maps, letters, strict=True):
            blocks = values["block"].values.tolist()
            heatmap(one, values.values, blocks, norm=scale)
            every = max(1, len(blocks) // 12)
            one.set_yticks(range(0, len(blocks), every), blocks[::every])
            one.tick_params(labelleft=one is axes[0])
            steps(one, run.sizes["step"])
            panel(one, letter, run_name(run).replace(", ", "\n"))
        bar = side.colorbar(ScalarMappable(scale), ax=list(axes), label=title, shrink=0.9, pad=0.02)
        if isinstance(scale, LogNorm):
            plain(bar.ax.yaxis)


def colour_scale(values: np.ndarray, *, log: bool) -> Normalize:
    """One scale for a pair, from the smallest to the largest value; logarithmic for ratios."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.1, 1.0)
    return LogNorm(max(low, 1e-6), max(high, 2e-6)) if log else Normalize(0, high or 1.0)
