"""Every figure of the list is drawn, saved as PDF and PNG, and says what it lacks."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from analysis.evidence import Evidence, MissingEvidenceError, budgets
from analysis.figures import FIGURES, figure1_replacement, figure7_trajectory
from analysis.figures.figure_filmstrip import shown
from analysis.figures.style import LOOKS, save, styled
from tests.measured import FACES, PROMPTS, evidence, measured_run

CONTRACT = (
    "figure1_replacement",
    "figure2_grid",
    "figure3_early_window",
    "figure4_streams",
    "figure5_complexity",
    "figure6_adapter_scale",
    "figure7_trajectory",
    "figure8_per_face",
    "figure9_weak_adapter",
    "figure_tradeoff",
    "figure_filmstrip",
)
WHOLE = evidence()
ODD = {
    "one face": evidence(faces=FACES[:1]),
    "many gaps": evidence(missing=0.6),
}


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
    with styled():
        pdf, png = save(figure, tmp_path, name)
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"/Type3" not in pdf.read_bytes()  # fonts are embedded as outlines that journals take
    with Image.open(png) as image:
        assert image.width <= 7.1 * 200
        assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", CONTRACT)
def test_one_face_and_many_gaps_are_drawn_too(name: str, odd: str) -> None:
    with styled():
        figure = drawn(name, ODD[odd])
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
    assert any("python -m analysis.paper experiments=[" in line for line in told)


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
    command = "python -m analysis runs=[a.zarr] metrics=[sharpness]"
    assert all(command in line for line in gaps(drawn("figure4_streams", poorer)))


def test_captions_name_what_is_ours() -> None:
    for name, words in {
        "figure3_early_window": "early effective window, our definition",
        "figure4_streams": "our definition",
        "figure5_complexity": "are ours",
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


def test_a_filmstrip_shows_all_steps_or_the_first_and_last_among_them() -> None:
    assert shown(4, 9) == [0, 1, 2, 3]
    assert (shown(28, 9)[0], shown(28, 9)[-1], len(shown(28, 9))) == (0, 27, 9)
