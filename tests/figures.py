"""Figures that tests draw of measured runs with known answers, and what is read off them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures import FIGURES
from stepscope.analysis.figures.style import styled
from tests.measured import evidence

WHOLE = evidence()


def drawn(name: str, from_what: Evidence = WHOLE) -> Figure:
    with styled():
        return FIGURES[name].make(from_what)


def gaps(figure: Figure) -> list[str]:
    found = figure.findobj(lambda artist: artist.get_gid() == "gap")
    return [" ".join(artist.get_text().split()) for artist in found if isinstance(artist, Text)]


def texts(figure: Figure) -> list[str]:
    return [a.get_text() for a in figure.findobj(Text) if isinstance(a, Text)]


def lines_of(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [
        line
        for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
        if isinstance(line, Line2D) and text == label
    ]
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
