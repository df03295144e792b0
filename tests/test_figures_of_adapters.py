"""Figures of adapters and of likeness to a picture: what each draws, and of which run."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.figures import (
    figure_adapters,
    figure_reference,
)
from stepscope.analysis.figures.style import styled
from stepscope.analysis.lookup import MissingEvidenceError
from tests.figures import WHOLE, drawn, gaps, lines_of, texts
from tests.measured import falling, pictured_run


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
        "sdxl, style, ip adapter:0": twice,
        "sdxl, style, lora:a": twice,
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
