"""The replacement: what changes between the two configurations, and what stays.

Above, the pipeline with what stays (grey) and what is replaced (outlined); adapter and recogniser
are the same frozen files in both runs where their hashes are equal, and the hash is printed.
Below, every setting in which the two runs' resolved configurations differ, read from the runs; all
other settings are equal. Batch sizes and paths are left out.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures.marks import look
from stepscope.analysis.figures.style import INK, QUIET, canvas
from stepscope.analysis.quantities import name

EXPERIMENTS = ("main",)
BOXES = ("portrait", "identity\nencoder", "InfuseNet", "backbone", "VAE", "image")
NO_DIFFERENCE_TO_THE_RESULT = ("batch_size", "out", "device")


def draw(evidence: Evidence) -> Figure:
    """The diagram from the two runs of `main`."""
    first, second = (evidence.one("main", backbone=b) for b in evidence.backbones)
    rows = differences(first.attrs["configuration"], second.attrs["configuration"])
    figure = canvas(1.6 + 0.17 * len(rows))
    top, below = figure.subplots(2, 1, height_ratios=[1.05, 0.35 + 0.17 * len(rows)])
    pipeline(top, frozen(first.attrs["weights"], second.attrs["weights"]))
    table(below, rows, [name(b) for b in evidence.backbones])
    return figure


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], under: str = ""
) -> list[tuple[str, str, str]]:
    """(setting, first value, second value) wherever two configurations differ."""
    rows = []
    for key in sorted({*first, *second} - {*NO_DIFFERENCE_TO_THE_RESULT}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            rows += differences(a, b, f"{under}{key}.")
        elif a != b:
            rows.append((under + key, *("none" if v is None else str(v) for v in (a, b))))
    return rows


def frozen(first: Mapping[str, str], second: Mapping[str, str]) -> str:
    """What the weight hashes say of the adapter's files in the two runs."""
    files = sorted(f for f in {*first, *second} if f.startswith(("adapter/", "encoder/")))
    if not files:
        return "no adapter's file was recorded"
    other = [f for f in files if first.get(f) != second.get(f)]
    if other:
        return f"NOT the same files: {', '.join(other)}"
    return f"same {len(files)} frozen file{'s' * (len(files) > 1)}, SHA-256 {first[files[0]][:8]}…"


def pipeline(axes: Axes, same: str) -> None:
    """Boxes and arrows; the backbone's box is the one that is replaced."""
    axes.set(xlim=(0, 12), ylim=(0, 2.2))
    axes.axis("off")
    for i, word in enumerate(BOXES):
        swapped = word == "backbone"
        box = FancyBboxPatch(
            (2 * i + 0.35, 0.75),
            1.3,
            0.9,
            boxstyle="round,pad=0.04",
            fc="white" if swapped else "#ececec",
            ec=look(0).colour if swapped else "#bbbbbb",
            lw=1.6 if swapped else 0.8,
        )
        axes.add_patch(box)
        axes.text(
            2 * i + 1, 1.2, word, ha="center", va="center", weight="bold" if swapped else "normal"
        )
        if i:
            arrow = FancyArrowPatch(
                (2 * i - 0.3, 1.2),
                (2 * i + 0.3, 1.2),
                arrowstyle="-|>",
                mutation_scale=8,
                color=INK,
            )
            axes.add_patch(arrow)
    axes.text(4, 0.35, same, ha="center", va="center", color=QUIET)
    axes.text(
        7, 1.98, "replaced, with its own schedule", ha="center", va="center", color=look(0).colour
    )


def table(axes: Axes, rows: list[tuple[str, str, str]], heads: list[str]) -> None:
    """One line a differing setting, the two values side by side."""
    axes.set(xlim=(0, 12), ylim=(len(rows) + 0.4, -1.4))
    axes.axis("off")
    places = (0.35, 3.6, 7.8)
    for x, word in zip(places, ("setting", *heads), strict=True):
        axes.text(x, -0.8, word, weight="bold", va="center")
    axes.axhline(-0.25, 0.03, 0.97, color=INK, lw=0.6)
    for i, row in enumerate(rows):
        if i % 2 == 0:
            axes.axhspan(i - 0.1, i + 0.9, 0.03, 0.97, color="#f5f5f5", lw=0)
        for x, word in zip(places, row, strict=True):
            axes.text(x, i + 0.4, word, family="DejaVu Sans Mono", va="center", fontsize=6.5)
