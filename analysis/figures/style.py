"""The style of all figures: sizes, fonts, colours that differ in grey, and the files of a saved figure."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 7.0
"""Inches across two columns of a paper."""
DOTS_PER_INCH = 200
LETTERS_AN_INCH = 17
"""Of italic text in the style's size."""

RC: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "figure.dpi": DOTS_PER_INCH,
    "savefig.dpi": DOTS_PER_INCH,
    "pdf.fonttype": 42,  # TrueType outlines in the file: journals refuse Type 3
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same everywhere
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "image.cmap": "cividis",
    "image.interpolation": "nearest",
}


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one condition; no two differ by colour alone."""

    colour: str
    line: str | tuple[int, tuple[float, ...]]
    marker: str


# Okabe & Ito (2008), ordered so that neighbours also differ in lightness; three more for many conditions.
LOOKS = (
    Look("#0072B2", "-", "o"),
    Look("#E69F00", "--", "s"),
    Look("#000000", "-.", "D"),
    Look("#009E73", ":", "^"),
    Look("#CC79A7", (0, (5, 1, 1, 1, 1, 1)), "v"),
    Look("#56B4E9", (0, (1, 1)), "P"),  # pyright: ignore[reportArgumentType]
    Look("#D55E00", (0, (7, 2)), "X"),  # pyright: ignore[reportArgumentType]
    Look("#7B6BB2", (0, (3, 1, 1, 1)), "*"),  # pyright: ignore[reportArgumentType]
    Look("#8C564B", (0, (9, 1)), "<"),  # pyright: ignore[reportArgumentType]
    Look("#999933", (0, (4, 1, 1, 1, 1, 1, 1, 1)), ">"),  # pyright: ignore[reportArgumentType]
)
INK, QUIET = "#222222", "#777777"


@contextmanager
def styled() -> Iterator[None]:
    """While it lasts, what is drawn has this style."""
    with matplotlib.rc_context({"backend": "agg", **RC}):
        yield


def canvas(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, sizes in inches."""
    return Figure(figsize=(width, height))


def frames(
    figure: Figure, rows: Sequence[float], columns: Sequence[float], side: float
) -> np.ndarray:
    """Square axes of `side` at the given tops and lefts, all in inches from the upper left corner.

    Placed by hand: a layout engine takes seconds for as many axes as pictures need.
    """
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    return np.array(
        [
            [
                figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
                for x in columns
            ]
            for y in rows
        ]
    )


def panel(axes: Axes, letter: str, title: str) -> None:
    """Panel letter and title."""
    axes.set_title(rf"$\bf{{{letter}}}$  {title}")


def gap(axes: Axes, reason: str) -> None:
    """An empty panel that says what is missing in it, and why; once, if it is said twice."""
    if any(text.get_gid() == "gap" and _one_line(text.get_text()) == reason for text in axes.texts):
        return
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set(linestyle=":", color=QUIET, visible=True)
    width = axes.get_position().width * axes.get_figure(root=True).get_figwidth()  # pyright: ignore[reportOptionalMemberAccess]
    letters = max(20, round(LETTERS_AN_INCH * width))
    axes.text(
        0.5,
        0.5,
        # In lines that fit the panel: matplotlib's own wrapping knows the figure's edges alone.
        textwrap.fill(reason, letters, break_long_words=False, break_on_hyphens=False),
        ha="center",
        va="center",
        color=QUIET,
        style="italic",
        gid="gap",
        transform=axes.transAxes,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write the figure as vector PDF and as PNG; without dates, so that equal figures are equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    pdf, png = folder / f"{name}.pdf", folder / f"{name}.png"
    figure.savefig(pdf, metadata={"CreationDate": None})
    figure.savefig(png)
    return pdf, png
