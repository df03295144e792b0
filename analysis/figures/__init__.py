"""One list of figures: each is a file, whose first lines are its caption."""

from matplotlib.figure import Figure

from stepscope.analysis.exhibit import Exhibit, exhibits
from stepscope.analysis.figures import (
    figure1_replacement,
    figure2_grid,
    figure3_early_window,
    figure4_streams,
    figure5_complexity,
    figure6_adapter_scale,
    figure7_trajectory,
    figure8_per_face,
    figure9_weak_adapter,
    figure_adapter_window,
    figure_adapters,
    figure_branch,
    figure_directions,
    figure_face_swap,
    figure_filmstrip,
    figure_reference,
    figure_tradeoff,
    figure_transplant,
    figure_window_seconds,
)

FIGURES: dict[str, Exhibit[Figure]] = exhibits(
    "draw",
    figure1_replacement,
    figure2_grid,
    figure3_early_window,
    figure_reference,
    figure4_streams,
    figure5_complexity,
    figure6_adapter_scale,
    figure7_trajectory,
    figure8_per_face,
    figure9_weak_adapter,
    figure_adapter_window,
    figure_adapters,
    figure_face_swap,
    figure_branch,
    figure_transplant,
    figure_window_seconds,
    figure_directions,
    figure_tradeoff,
    figure_filmstrip,
)
