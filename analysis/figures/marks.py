"""Drawing functions of the figures: curves with bands, points with bars, heatmaps, pictures."""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import FigureBase
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from stepscope.analysis.bootstrap import WITHOUT
from stepscope.analysis.figures.style import INK, LOOKS, QUIET, Look


def curve(
    axes: Axes, x: Any, mean: xr.Dataset, look: Look, label: str, *, faint: bool = False
) -> None:
    """A mean with the band of its interval; single points are drawn too.

    Shaded is the interval at each point; a thin outline, where there is one, holds the whole curve at
    once. faint: without either, for a null.
    """
    x, middle = np.asarray(x, float), mean["mean"].values
    if not faint:
        axes.fill_between(
            x, mean["low"].values, mean["high"].values, color=look.colour, alpha=0.2, lw=0
        )
        for end in ("band_low", "band_high"):
            if end in mean:
                axes.plot(x, mean[end].values, color=look.colour, lw=0.35, alpha=0.7)
    axes.plot(x, middle, color=look.colour, ls=look.line, marker=look.marker, ms=2.4, label=label)
    if np.isnan(mean["low"].values).all() and np.isfinite(middle).any():
        why = mean.attrs.get(WITHOUT, "one face: no interval")
        axes.plot([], [], " ", label=f"  ({why})")


def bars(
    axes: Axes,
    x: Any,
    found: Sequence[Any],
    look: Look,
    *,
    across: bool = False,
    **more: Any,
) -> None:
    """Points with the bars of their intervals; `across` lays values along x.

    found: means, lower and upper ends, numbers or one for each x.
    """
    mean, low, high = found
    place, middle = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(mean, float))
    ends = np.atleast_1d(np.asarray(low, float)), np.atleast_1d(np.asarray(high, float))
    arms = np.abs(np.nan_to_num([middle - ends[0], ends[1] - middle], posinf=1e9, neginf=1e9))
    pair = (middle, place) if across else (place, middle)
    axes.errorbar(
        *pair,
        **{"xerr" if across else "yerr": arms},
        color=look.colour,
        marker=look.marker,
        **{"ls": "none", "elinewidth": 1.0, "capsize": 1.8, "ms": 3.4, **more},
    )


def heatmap(
    axes: Axes, values: np.ndarray, rows: Sequence[str], norm: Normalize, colours: str | None = None
) -> None:
    """A map of (row, step), first row on top; NaN is hatched. Some 8 rows and 6 steps are named."""
    axes.grid(visible=False)
    axes.set_facecolor("#ffffff")
    axes.patch.set(hatch="////", edgecolor="#bbbbbb")
    seaborn.heatmap(
        pandas.DataFrame(values, index=list(rows)),
        ax=axes,
        norm=norm,
        cmap=colours or matplotlib.rcParams["image.cmap"],
        cbar=False,
        # Its own labels are measured one by one, each on a picture of the whole figure.
        xticklabels=False,
        yticklabels=False,
    )
    for axis, names, most in ((axes.xaxis, range(values.shape[1]), 6), (axes.yaxis, rows, 8)):
        named = range(0, len(names), -(-len(names) // most))
        axis.set_ticks([at + 0.5 for at in named], labels=[str(names[at]) for at in named])
    for side in axes.spines.values():
        side.set_visible(True)


def picture(axes: Axes, image: np.ndarray | None, under: str = "", *, quiet: bool = False) -> None:
    """A picture without axes, with a word under it."""
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    if image is not None and image.any():
        axes.imshow(image, interpolation="bicubic")
    else:
        axes.set_facecolor("#f2f2f2")
        axes.set_aspect("equal")
    axes.set_xlabel(under, labelpad=2, fontsize=6, color=QUIET if quiet else INK)


def legend(axes: Axes, **place: Any) -> None:
    """A legend, where there is anything to name."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**place)


def key(figure: FigureBase, axes: Axes, side: Literal["left", "right"] = "right") -> None:
    """A legend above the panels, at the left or the right, where there is anything to name."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        place = "outside upper left" if side == "left" else "outside upper right"
        figure.legend(handles, labels, loc=place, ncols=len(labels))


def plain(axis: Axis) -> None:
    """A logarithmic axis with a few plain numbers, even ones where it spans little."""
    low, high = axis.get_view_interval()
    narrow = high < 5 * low
    axis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def steps(axes: Axes, count: int) -> None:
    """A step axis: whole numbers alone."""
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=min(count, 4)))


def cosine(value: float) -> str:
    """A similarity as it stands under a picture."""
    return f"{value:.2f}" if np.isfinite(value) else "no face"


def wrapped(text: str, width: int) -> str:
    """Broken into lines of at most `width` letters."""
    return "\n".join(textwrap.wrap(text, width))


def look(index: int) -> Look:
    """The look of the index-th condition of a figure."""
    return LOOKS[index % len(LOOKS)]
