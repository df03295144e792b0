"""One list of figures: each is a file, whose first lines are its caption."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from matplotlib.figure import Figure

from analysis.evidence import Evidence
from analysis.figures import (
    figure1_replacement,
    figure2_grid,
    figure3_early_window,
    figure4_streams,
    figure5_complexity,
    figure6_adapter_scale,
    figure7_trajectory,
    figure8_per_face,
    figure9_weak_adapter,
    figure_filmstrip,
    figure_tradeoff,
)


@dataclass(frozen=True)
class Drawing:
    """A figure: its name, its caption, the experiments that it needs, and what draws it."""

    name: str
    caption: str
    experiments: tuple[str, ...]
    draw: Callable[[Evidence], Figure]

    @classmethod
    def of(cls, module: ModuleType) -> "Drawing":
        """The figure of a file."""
        name = module.__name__.rpartition(".")[2]
        return cls(name, (module.__doc__ or "").strip(), module.EXPERIMENTS, module.draw)


FIGURES: dict[str, Drawing] = {
    drawing.name: drawing
    for drawing in map(
        Drawing.of,
        (
            figure1_replacement,
            figure2_grid,
            figure3_early_window,
            figure4_streams,
            figure5_complexity,
            figure6_adapter_scale,
            figure7_trajectory,
            figure8_per_face,
            figure9_weak_adapter,
            figure_tradeoff,
            figure_filmstrip,
        ),
    )
}
