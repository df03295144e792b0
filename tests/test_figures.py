"""Every figure of the list is drawn, saved as PDF and PNG, and says what it lacks."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from stepscope.analysis.budgets import budgets
from stepscope.analysis.cells import FaceMeans
from stepscope.analysis.evidence import IDENTITY, Evidence
from stepscope.analysis.figures import (
    FIGURES,
    figure1_replacement,
    figure7_trajectory,
    figure8_per_face,
    figure_adapters,
    figure_reference,
)
from stepscope.analysis.figures.figure_filmstrip import shared_steps
from stepscope.analysis.figures.style import LOOKS, save, styled
from stepscope.analysis.lookup import MissingEvidenceError
from tests.measured import FACES, PROMPTS, evidence, falling, measured_run, pictured_run

CONTRACT = (
    "figure1_replacement",
    "figure2_grid",
    "figure3_early_window",
    "figure_reference",
    "figure4_streams",
    "figure5_complexity",
    "figure6_adapter_scale",
    "figure7_trajectory",
    "figure8_per_face",
    "figure9_weak_adapter",
    "figure_adapter_window",
    "figure_adapters",
    "figure_face_swap",
    "figure_transplant",
    "figure_window_seconds",
    "figure_directions",
    "figure_tradeoff",
    "figure_filmstrip",
)
WHOLE = evidence()
ODD: dict[str, dict[str, Any]] = {
    "one face": {"faces": FACES[:1]},
    "many gaps": {"missing": 0.6},
}


@cache
def odd_evidence(name: str) -> Evidence:
    return evidence(**ODD[name])


def drawn(name: str, from_what: Evidence = WHOLE) -> Figure:
    with styled():
        return FIGURES[name].make(from_what)


def gaps(figure: Figure) -> list[str]:
    found = figure.findobj(lambda artist: artist.get_gid() == "gap")
    return [" ".join(artist.get_text().split()) for artist in found if isinstance(artist, Text)]


def test_the_list_is_the_papers() -> None:
    assert tuple(FIGURES) == CONTRACT


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", CONTRACT)
def test_a_figure_is_drawn_whole_and_saved_as_vector_and_picture(name: str, tmp_path: Path) -> None:
    figure = drawn(name)
    assert gaps(figure) == []
    said = f"{FIGURES[name].caption} {texts(figure)}".lower()
    assert "where identity enters" not in said, "it says more than what is measured"
    with styled():
        pdf, png = save(figure, tmp_path, name)
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"/Type3" not in pdf.read_bytes()  # fonts are embedded as outlines that journals take
    with Image.open(png) as image:
        assert image.width <= 7.1 * 200
        assert np.asarray(image.convert("L")).std() > 5


SLOW_TO_DRAW = {"figure_transplant", "figure4_streams"}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TO_DRAW else name
        for name in CONTRACT
    ],
)
def test_one_face_and_many_gaps_are_drawn_too(name: str, odd: str) -> None:
    with styled():
        figure = drawn(name, odd_evidence(odd))
        figure.draw_without_rendering()
    assert any(axes.has_data() or axes.texts for axes in figure.axes)


def test_a_missing_judge_is_named() -> None:
    circular = evidence(recognisers=("identity",))
    with pytest.raises(
        MissingEvidenceError, match=r"recogniser None did not measure this run: \['ide"
    ):
        circular.endpoint(circular.runs["main"][0])


@pytest.mark.parametrize("name", CONTRACT)
def test_an_experiment_that_was_not_run_is_named_with_its_command(name: str) -> None:
    nothing = Evidence({}, baseline="pocket_dev", swapped="pocket_schnell")
    try:
        told = gaps(drawn(name, nothing))
    except MissingEvidenceError as error:
        told = [str(error)]
    assert any("stepscope paper experiments=[" in line for line in told)


def test_a_variable_that_was_not_measured_leaves_a_labelled_gap() -> None:
    runs = {"trajectory": [run.drop_vars("contribution") for run in WHOLE.runs["trajectory"]]}
    poorer = Evidence(runs, baseline="pocket_dev", swapped="pocket_schnell", resamples=99)
    told = gaps(drawn("figure4_streams", poorer))
    assert len(told) == 2
    assert all("contribution is not in the run of pocket_dev, 28 steps" in line for line in told)
    assert all("it was not recorded" in line for line in told)


def test_a_metric_that_was_not_measured_is_named_with_its_command() -> None:
    runs = [r.drop_vars("sharpness").assign_attrs(path="a.zarr") for r in WHOLE.runs["trajectory"]]
    poorer = Evidence({"trajectory": runs}, baseline="pocket_dev", swapped="pocket_schnell")
    command = "stepscope measure a.zarr metrics=[sharpness]"
    assert all(command in line for line in gaps(drawn("figure4_streams", poorer)))


def test_captions_name_what_is_ours() -> None:
    for name, words in {
        "figure3_early_window": "early effective window, our definition",
        "figure4_streams": "our definition",
        "figure5_complexity": "are our definition",
    }.items():
        assert words in " ".join(FIGURES[name].caption.split())


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


def test_looks_differ_without_colour() -> None:
    assert (
        len({look.marker for look in LOOKS})
        == len({str(look.line) for look in LOOKS})
        == len(LOOKS)
    )


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


def texts(figure: Figure) -> list[str]:
    return [a.get_text() for a in figure.findobj(Text) if isinstance(a, Text)]


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


def lines_of(axes: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [
        line
        for line, text in zip(*axes.get_legend_handles_labels(), strict=True)
        if isinstance(line, Line2D) and text == label
    ]
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def test_adapters_lie_over_one_another_each_as_a_share_of_its_own_maximum() -> None:
    style, object_ = WHOLE.runs["style_adapter"][-1], WHOLE.runs["object_adapter"][-1]
    both = style.assign(contribution=style["contribution"].copy(data=style["contribution"] * 7))
    twice = both.assign_coords(
        injection_adapter=("injection", ["ip_adapter:0", "lora:a", "lora:a"])
    )
    with styled():
        figure = figure_adapters.of_runs(WHOLE, [style, object_, twice])
    top = figure.axes[0]
    expected = {
        "sdxl, style": style,
        "sd15, object": object_,
        "sdxl, ip adapter:0": twice,
        "sdxl, lora:a": twice,
    }
    assert top.get_legend_handles_labels()[1] == list(expected)
    for label, run in expected.items():
        x, y = lines_of(top, label)
        shape = falling(run.sizes["step"])
        np.testing.assert_allclose(x, run["log_snr"])
        np.testing.assert_allclose(y, shape / shape.max())
    assert len(gaps(figure)) == 2  # no causal study of these was made


def test_a_step_of_noise_alone_has_no_place_on_log_snr_and_sets_no_maximum() -> None:
    run = WHOLE.runs["trajectory"][0]
    first = (run["step"] == 0) * 9 + 1
    one = figure_adapters.Course(
        "a", run.assign(contribution=run["contribution"] * first), "controlnet"
    )
    assert run["log_snr"][0] == -np.inf
    assert float(figure_adapters.course(WHOLE, one)["mean"][1:].max()) == 1
    assert np.isfinite(lines_of(drawn("figure_adapters").axes[0], "pocket dev, pocket")[0]).all()


def test_a_causal_window_is_of_the_run_that_it_was_made_of() -> None:
    run = WHOLE.runs["trajectory"][0]
    study = WHOLE.causal["adapter_window", "pocket_dev"]
    effect = figure_adapters.effects_of(WHOLE, run, "first steps")
    x, (kept, low, high) = figure_adapters.left(run, effect)
    np.testing.assert_array_equal(x, run["log_snr"].values[[7, 14, 21]])
    np.testing.assert_array_equal(kept, effect["kept"].values[np.argsort(effect["at"].values)])
    assert ((low < kept) & (kept < high)).all()
    configuration = {**run.attrs["configuration"], "adapter": {"name": "another"}}
    other = replace(
        WHOLE,
        causal={("adapter_window", "pocket_dev"): study.assign_attrs(configuration=configuration)},
    )
    with pytest.raises(MissingEvidenceError, match="of a run of another adapter or step count"):
        figure_adapters.effects_of(other, run, "first steps")


def test_likeness_to_a_picture_is_drawn_by_measure_against_steps_and_log_snr() -> None:
    figure = drawn("figure_reference")
    run = WHOLE.runs["style_adapter"][-1]
    whole, along, against, _, gram = figure.axes[:5]
    for name, label in {"reference_dinov2": "DINOv2", "reference_clip": "CLIP"}.items():
        mean = WHOLE.average(run[f"{name}_step"])["mean"]
        for axes, x in ((along, "step"), (against, "log_snr")):
            np.testing.assert_allclose(lines_of(axes, label), (run[x].values, mean))
        x, y = lines_of(whole, label)
        assert x.tolist() == [5, 10, 20]
        assert y[-1] == pytest.approx(float(WHOLE.average(run[name])["mean"]))
    assert gram.get_yscale() == "log"
    assert lines_of(gram, "Gram distance")[0].tolist() == [5, 10, 20]


def test_likeness_that_was_not_measured_is_named_with_its_command() -> None:
    def poorer(run: xr.Dataset) -> xr.Dataset:
        return run.drop_vars([n for n in run if str(n).startswith(("reference", "style"))])

    runs = {n: [poorer(r) for r in WHOLE.runs[n]] for n in ("style_adapter", "object_adapter")}
    told = gaps(drawn("figure_reference", replace(WHOLE, runs=runs)))
    assert told
    assert all("stepscope measure ... metrics=[reference_dinov2" in line for line in told)


def test_conditions_are_named_by_what_they_differ_in() -> None:
    runs = [pictured_run(steps=n) for n in (5, 10)] + [pictured_run("turbo", 4)]
    found = figure_reference.conditions(runs)
    assert {name: len(some) for name, some in found.items()} == {"sdxl": 2, "turbo": 1}
    assert list(figure_reference.conditions(runs[:2])) == [""]


def test_the_early_window_of_runs_without_a_face_is_of_likeness_to_their_picture() -> None:
    runs = [pictured_run(backbone, steps) for backbone, steps in (("a", 20), ("b", 4))]
    figure = drawn(
        "figure3_early_window",
        replace(WHOLE, runs={"trajectory": runs, "step_budget": runs}, baseline="a", swapped="b"),
    )
    found = [axes for axes in figure.axes if "DINOv2" in axes.get_legend_handles_labels()[1]]
    assert len(found) == 4  # two backbones against step and log-SNR
    np.testing.assert_allclose(lines_of(found[1], "CLIP")[0], runs[0]["log_snr"])
    mean = WHOLE.average(runs[0]["reference_clip_step"])["mean"]
    np.testing.assert_allclose(lines_of(found[0], "CLIP")[1], mean)
    assert "90% of\nrise" in texts(figure)


@pytest.mark.parametrize(
    "backbone", ["pocket_dev", pytest.param("pocket_schnell", marks=pytest.mark.slow)]
)
def test_of_a_study_of_one_backbone_what_cannot_be_drawn_is_missing_evidence(backbone: str) -> None:
    alone = {
        name: [run for run in runs if run.attrs["backbone"] == backbone]
        for name, runs in WHOLE.runs.items()
    }
    missing = 0
    for figure in FIGURES.values():
        try:
            with styled():
                figure.make(replace(WHOLE, runs=alone))
        except MissingEvidenceError:
            missing += 1
    assert 0 < missing < len(FIGURES)
