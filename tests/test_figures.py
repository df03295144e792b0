"""Every figure of the list is drawn, saved as PDF and PNG, and says what it lacks."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stepscope.analysis.evidence import Evidence
from stepscope.analysis.figures import FIGURES
from stepscope.analysis.figures.style import LOOKS, save, styled
from stepscope.analysis.lookup import MissingEvidenceError
from tests.figures import WHOLE, drawn, gaps, texts
from tests.measured import FACES, evidence

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
    "figure_branch",
    "figure_transplant",
    "figure_window_seconds",
    "figure_directions",
    "figure_tradeoff",
    "figure_filmstrip",
)


ODD: dict[str, dict[str, Any]] = {
    "one face": {"faces": FACES[:1]},
    "many gaps": {"missing": 0.6},
}


@cache
def odd_evidence(name: str) -> Evidence:
    return evidence(**ODD[name])


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


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", CONTRACT)
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


def test_looks_differ_without_colour() -> None:
    assert (
        len({look.marker for look in LOOKS})
        == len({str(look.line) for look in LOOKS})
        == len(LOOKS)
    )


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
