"""Figures of identity along a run: curves, intervals, chance and ceiling, and their differences."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stepscope.analysis.budgets import budgets
from stepscope.analysis.cells import FaceMeans
from stepscope.analysis.evidence import IDENTITY, Evidence
from stepscope.analysis.figures import (
    figure1_replacement,
    figure7_trajectory,
    figure8_per_face,
)
from stepscope.analysis.figures.figure_filmstrip import shared_steps
from stepscope.analysis.figures.style import LOOKS
from tests.figures import WHOLE, drawn, texts
from tests.measured import FACES, PROMPTS, evidence, measured_run


def test_the_replacement_shows_every_difference_and_the_adapters_hash() -> None:
    first, second = WHOLE.runs["main"]
    rows = figure1_replacement.differences(
        first.attrs["configuration"], second.attrs["configuration"]
    )
    assert ("steps", "28", "4") in rows
    assert ("guidance", "3.5", "none") in rows
    assert not any(row[0].startswith("adapter") for row in rows)
    same = figure1_replacement.frozen(first.attrs["weights"], second.attrs["weights"])
    assert same.endswith("abababab…")
    other = {"adapter/x": "1"}
    assert "NOT the same" in figure1_replacement.frozen(other, {"adapter/x": "2"})


@pytest.mark.parametrize("faces", [2, 3, len(FACES)])
def test_the_conceptual_trajectory_keeps_its_intervals_and_its_legend_apart(faces: int) -> None:
    figure = drawn("figure7_trajectory", evidence(faces=FACES[:faces]))
    for axes in figure.axes:
        low, high = axes.get_ylim()
        bars = [c for c in axes.collections if isinstance(c, LineCollection)]
        ends = np.concatenate([np.ravel(s)[1::2] for bar in bars for s in bar.get_segments()])
        assert len(ends)
        assert ends.min() >= low - 1e-9
        assert ends.max() <= high + 1e-9
        assert axes.get_legend() is None  # it is the figure's, above the panels
    assert len(figure.legends) == 1


def test_shares_of_the_way_are_those_of_the_mean_and_without_spread_where_faces_go_alike() -> None:
    run = measured_run(missing=0.0)
    offset = {face: 0.1 * k for k, face in enumerate(FACES)}
    step = np.arange(run.sizes["step"])
    way = 1 - np.exp(-step / 4.0)
    values = WHOLE.identity(run).copy(
        data=np.stack([offset[face] + 0.5 * way for face in run["face"].values])
    )
    found = figure7_trajectory.course(WHOLE, values, LOOKS[0], "identity")
    assert found.taus[0] == pytest.approx(4.0, rel=1e-3)
    for shares in found.shares:  # middle, and both ends of the interval
        np.testing.assert_allclose(shares, way, atol=1e-3)


def test_budgets_join_the_cells_that_all_runs_have() -> None:
    few = measured_run(steps=4, faces=FACES[:4])
    many = measured_run(steps=8)
    curves = budgets(WHOLE, [many, few])
    assert curves["budget"].values.tolist() == [4, 8]
    assert curves.sizes["sample"] == few.sizes["sample"]
    key = (curves["face"] == FACES[2]) & (curves["prompt"] == PROMPTS[0]) & (curves["seed"] == 1)
    here = (many["face"] == FACES[2]) & (many["prompt"] == PROMPTS[0]) & (many["seed"] == 1)
    expected = many["final_similarity"].sel(recogniser="pocket").values[here.values]
    np.testing.assert_array_equal(curves.sel(budget=8).values[key.values], expected)


def test_a_filmstrip_shows_steps_that_all_rows_have() -> None:
    short, long = WHOLE.runs["trajectory"][::-1]
    assert shared_steps(short, 9) == [0, 1, 2, 3]
    assert shared_steps(long, 9) == [0, 4, 8, 12, 16, 20, 24]
    assert shared_steps(long, 3) == [0, 12, 24]
    steps = shared_steps(long.drop_vars("off_from"), 9)
    assert (steps[0], steps[-1], len(steps)) == (0, 27, 9)


NAMES = ["as predicted", "carried by the latents", "committed", "blur null"]


def labels(figure: Figure) -> list[list[str]]:
    return [axes.get_legend_handles_labels()[1] for axes in figure.axes]


def test_the_three_curves_and_their_null_are_drawn_by_their_names_for_both_backbones() -> None:
    figure = drawn("figure3_early_window")
    found = [each for each in labels(figure) if each == NAMES]
    assert len(found) == 4  # two backbones against step and sigma
    dev = next(axes for axes in figure.axes if axes.get_legend_handles_labels()[1] == NAMES)
    for line, values in zip(
        dev.get_legend_handles_labels()[0],
        (read(WHOLE, WHOLE.runs["trajectory"][0]) for read in CURVES),
        strict=True,
    ):
        assert isinstance(line, Line2D)
        np.testing.assert_allclose(np.asarray(line.get_ydata()), WHOLE.average(values)["mean"])
        np.testing.assert_allclose(np.asarray(line.get_xdata()), values[values.dims[1]])


CURVES = (*IDENTITY.values(), lambda evidence, run: evidence.blur_null(run))


def test_what_was_not_read_again_is_named() -> None:
    gone = ["committed_similarity", "null_similarity"]
    runs = [run.drop_vars(gone) for run in WHOLE.runs["trajectory"]]
    poorer = Evidence({"trajectory": runs}, "pocket_dev", "pocket_schnell", resamples=99)
    found = labels(drawn("figure3_early_window", poorer))
    told = [*NAMES[:2], "committed: not measured", "blur null: not measured"]
    assert found.count(told) == 4
    drawn("figure7_trajectory", poorer)
    drawn("figure4_streams", poorer)


@pytest.mark.parametrize(
    "name", ["figure3_early_window", "figure4_streams", "figure6_adapter_scale", "figure_tradeoff"]
)
def test_chance_and_ceiling_stand_in_plots_of_identity_or_are_said_to_lack(name: str) -> None:
    assert {"another person", "same person, other photo"} <= set(texts(drawn(name)))
    runs = {
        experiment: [
            run.assign(ceiling=run["ceiling"] * np.nan) if "ceiling" in run else run for run in each
        ]
        for experiment, each in WHOLE.runs.items()
    }
    alone = Evidence(runs, "pocket_dev", "pocket_schnell", resamples=99)
    found = texts(drawn(name, alone))
    assert "ceiling unknown" in found
    assert "same person, other photo" not in found


def test_the_scale_of_the_maps_has_chance_and_ceiling_and_drift_says_what_it_can_see() -> None:
    figure = drawn("figure5_complexity")
    run = WHOLE.runs["prompt_complexity"][0]
    ends = [float(WHOLE.average(v)["mean"]) for v in (WHOLE.chance(run), WHOLE.ceiling(run))]
    (scale,) = (a for a in figure.findobj(Axes) if a.get_ylabel() == "cosine to the reference")
    assert [np.asarray(line.get_ydata())[0] for line in scale.get_lines()] == pytest.approx(ends)
    assert any("detectable with power 0.8: from 0." in text for text in texts(figure))


def test_a_share_of_the_way_is_0_at_chance_and_1_at_the_ceiling() -> None:
    run = WHOLE.runs["trajectory"][0]
    for ends, share in ((WHOLE.chance(run), 0), (WHOLE.ceiling(run), 1)):
        assert float(WHOLE.average(WHOLE.way(ends, run))["mean"]) == pytest.approx(share)


def test_faces_are_in_order_of_the_mean_of_both_and_not_of_one() -> None:
    first = FaceMeans(np.array(["a", "b", "c"]), np.array([0.9, 0.1, 0.5]), np.ones(3, int))
    second = FaceMeans(np.array(["a", "b", "d"]), np.array([0.0, 0.9, 1.0]), np.ones(3, int))
    assert figure8_per_face.by_mean([first, second]).tolist()[:2] == ["b", "a"]


def test_padding_and_the_largest_channels_are_drawn_where_they_were_recorded() -> None:
    def richer(run: xr.Dataset) -> xr.Dataset:
        wide = run.reindex(stream=["image", "text", "padding", "identity"])
        norms = wide["attention_norm"].copy()
        norms.loc[{"stream": "padding"}] = 0.2
        without = wide["residual_norm"] / 2
        return wide.assign(attention_norm=norms, residual_norm_without_massive=without)

    runs = [richer(run) for run in WHOLE.runs["trajectory"]]
    figure = drawn(
        "figure4_streams", Evidence({"trajectory": runs}, "pocket_dev", "pocket_schnell")
    )
    told = texts(figure)
    for words in ("text tokens", "padding tokens", "whole", "without its largest channels"):
        assert words in told
    assert sum(text.startswith("$\\bf{b") for text in told) == 3  # double, single, residual
