"""The paper's experiments of picture adapters: planned with reference pictures of the user's, and made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from stepscope.analysis.causal.planned import describe_studies, planned_studies
from stepscope.analysis.commands import Planned, chosen_pictures, experiments, left_out, plan
from stepscope.analysis.cost import describe, latents_of, run_bytes, timings
from stepscope.analysis.paper import main, paper, wanted_metrics
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.composing import composed
from stepscope.probes.provenance import adapters_name
from stepscope.probes.study import Study
from tests.fixtures import DINOV2_SIZE
from tests.pictured import pictures, tiny_paper
from tests.shell import run_command

NAMES = ["style_adapter", "object_adapter"]
LIKENESS = ["reference_dinov2", "reference_clip"]


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> dict[str, Any]:
    """The configuration of the full study, with five pictures of each kind."""
    root = tmp_path_factory.mktemp("references")
    folders = {kind: str(pictures(root / kind, 5)) for kind in ("styles", "objects")}
    config = composed(["models=full"], "paper")
    config["models"]["pictures"] = folders
    return config | {"out": str(root / "out")}


@pytest.fixture(scope="module")
def planned(full) -> list[Planned]:
    found = chosen_pictures(None, full["models"]["pictures"])
    wanted = experiments(full["study"], NAMES, None, found)
    overrides, out = full["models"]["overrides"], Path(full["out"])
    return plan(wanted, [], overrides, out, dry=False, pictures=found)


def test_each_has_its_own_backbone_adapter_pictures_and_step_budgets(planned):
    runs = {name: [one.study for one in planned if one.experiment.name == name] for name in NAMES}
    style, of_object = (runs[name] for name in NAMES)
    assert [study.steps for study in style] == [5, 10, 20, 30]
    assert [study.steps for study in of_object] == [5, 10, 25, 50]
    assert {study.backbone.name for study in style} == {"sdxl"}
    assert {study.backbone.name for study in of_object} == {"sd15"}
    assert {study.adapter.blocks for study in style} == {"style"}
    assert {study.adapter.blocks for study in of_object} == {"all"}
    assert all("sd15" in study.adapter.path for study in of_object)
    for studies, kind in ((style, "styles"), (of_object, "objects")):
        assert {Path(face).parent.name for study in studies for face in study.faces} == {kind}
        assert {len(study.faces) for study in studies} == {5}
        assert {len(study.prompts) for study in studies} == {3}


def test_they_are_measured_by_likeness_to_the_picture_at_the_end_and_along_the_run(planned, full):
    found = wanted_metrics(planned, full)
    assert found.keys() == {one.path for one in planned}
    for one in planned:
        names = LIKENESS + ["style_gram"] * (one.experiment.name == "style_adapter")
        assert {*found[one.path]} == {"latency", *names, *(f"{name}_step" for name in names)}


def test_the_causal_window_is_of_the_longest_run_and_judged_by_likeness(planned, full):
    found = planned_studies(full["causal"], planned, full["models"])
    assert [(one.study.name, one.backbone, one.of.study.steps) for one in found] == [
        ("style_window", "sdxl", 30),
        ("object_window", "sd15", 50),
    ]
    for one in found:
        assert {part.do for part in one.study.parts} == {"zero"}
        assert {"first steps", "all but one step"} <= {part.name for part in one.study.parts}
        assert one.metrics[0] == "edited_reference_dinov2"
        assert "edited_identity" not in one.metrics


def test_studies_of_one_backbone_have_a_place_and_a_name_each(planned, full):
    causal: dict[str, Any] = dict.fromkeys(["a", "b"], full["causal"]["style_window"])
    found = planned_studies(causal, planned, full["models"])
    assert len({one.path for one in found}) == 2
    assert len({(one.study.name, one.backbone) for one in found}) == 2


def test_on_the_pocket_models_they_are_of_the_pocket_stable_diffusions(tmp_path):
    """Looks and hats that ship, words and judges that the pocket models know."""
    config = composed([], "paper")
    known = chosen_pictures(None, config["models"]["pictures"])
    wanted = experiments(config["study"], NAMES, None, known)
    overrides = config["models"]["overrides"]
    found = plan(wanted, [], overrides, tmp_path, dry=True, pictures=known)
    names = {(one.study.backbone.name, adapters_name(one.study)) for one in found}
    assert names == {
        ("pocket_sdxl", "pocket_style"),
        ("pocket_sdxl_lcm", "pocket_style"),
        ("pocket_sd15", "pocket_object"),
        ("pocket_sd15_lcm", "pocket_object"),
    }
    assert [one.metrics for one in wanted] == [
        ("reference_look_pocket",),
        ("reference_hat_pocket",),
    ]
    studies = planned_studies(config["causal"], found, config["models"])
    assert {(one.study.name, one.metrics) for one in studies} == {
        ("style_window", ("edited_reference_look_pocket",)),
        ("object_window", ("edited_reference_hat_pocket",)),
    }
    assert {one.backbone for one in studies if one.left_out} == {
        "pocket_sdxl_lcm",
        "pocket_sd15_lcm",
    }
    told = describe_studies(studies, {}).splitlines()
    assert sum("left out: a run with LCMScheduler cannot continue" in line for line in told) == 2


@pytest.mark.parametrize(
    "words", [["models=full"], ["models.pictures.styles=null", "models.pictures.objects=null"]]
)
def test_without_pictures_they_are_left_out_or_refused_where_they_are_named(words):
    config = composed(words, "paper")
    assert not any(config["models"]["pictures"].values())
    known = chosen_pictures(None, config["models"]["pictures"])
    made = {one.name for one in experiments(config["study"], None, None, known)}
    assert made == {*config["study"]} - {*NAMES}
    kinds = dict(zip(NAMES, ("styles", "objects"), strict=True))
    assert left_out(config["study"], known) == kinds
    with pytest.raises(StepscopeError, match=r"models=full 'models.pictures.objects=\[FOLDER\]'"):
        experiments(config["study"], ["object_adapter"], None, known)


def only(config: dict[str, Any], *names: str, **models: Any) -> dict[str, Any]:
    """These experiments alone, on one face or picture, without causal studies."""
    study = {name: config["study"][name] for name in names}
    changed = {"models": config["models"] | models, "study": study, "causal": None, "faces": 1}
    return config | changed


@pytest.mark.parametrize("given", [[], None])
def test_the_plan_says_in_one_note_what_adds_them_unless_the_models_have_none(given, full):
    said: list[str] = []
    kinds = full["models"]["pictures"] | {"styles": given}
    paper(only(full, *NAMES, pictures=kinds) | {"dry": True}, said.append)
    notes = [line for line in said if line.startswith("note: ")]
    told = "note: without style_adapter: stepscope paper 'models.pictures.styles=[FOLDER]' adds it"
    assert notes == [told] * (given == [])
    assert "object_adapter     sd15, 50 steps" in said[0]
    assert "style_adapter" not in said[0]


def test_no_hours_are_told_of_backbones_before_a_sample_of_one_is_made(planned, full):
    told = describe(planned, full["models"])
    assert told.splitlines()[-1].startswith("8 runs")
    assert "about 0.0 minutes" in told
    assert "besides 4 runs of sdxl and 4 runs of sd15, whose times the first" in told
    (one,) = (one for one in planned if one.study.backbone.name == "sd15" and one.study.steps == 5)
    latents = 4 * (512 // 8) ** 2 * 4  # channels, float32
    assert run_bytes(one, latents_of(one.study)) == one.cells * (11 * latents + 6 * 512 * 512 * 3)


def test_latents_are_those_of_the_backbones_own_vae(planned):
    pocket = Study.from_config(composed(["backbone=pocket_sd15", "prompts=[a person]"]))
    assert latents_of(pocket) == (16, 4)
    assert latents_of(planned[0].study) == (4, 8)  # sdxl, which is not on this machine


def test_a_finished_run_of_a_backbone_times_the_others(planned, full, tmp_path, typed):
    words = ["backbone=pocket_sd15", "prompts=[a person]", "steps=2"]
    assert typed([*words, f"out={tmp_path / 'run.zarr'}"]).status == 0
    study = Study.from_config(composed(words))
    made = replace(planned[0], study=study, path=tmp_path / "run.zarr")
    known = timings([made], full["models"])
    assert known["flux_dev"] == full["models"]["seconds"]
    run = xr.open_zarr(made.path)
    assert known["pocket_sd15"]["step"] == pytest.approx(float(run.step_seconds.median()) / 2)
    assert " - min" not in describe([made], full["models"])


def test_all_weights_that_are_missing_are_named_in_one_line_before_a_run_is_made(
    full, monkeypatch, tmp_path
):
    def unreached(*args: object, **words: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # an empty one
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreached)
    with pytest.raises(StepscopeError) as caught:
        paper(only(full, *NAMES), lambda text: None)
    told = str(caught.value)
    assert "\n" not in told
    for cure in (
        "`hf download openai/clip-vit-large-patch14`",
        "`hf download facebook/dinov2-base`",
        "put https://download.pytorch.org/models/vgg19-dcbb9e9d.pth there",
    ):
        assert told.count(cure) == 1
    assert not Path(full["out"]).exists()


@pytest.mark.slow
def test_from_the_command_to_the_figures_and_the_report(clip, dinov2, vgg, tmp_path, capsys):
    """On random models: both experiments, their causal windows, and words that claim no window."""
    networks = {"clip": clip, "dinov2": dinov2, "dinov2_size": DINOV2_SIZE, "gram": vgg}
    words = [
        *tiny_paper(tmp_path, networks | {"gram_size": 32}, steps=(2, 3)),
        f"experiments=[{','.join(NAMES)}]",
        "figures=[figure_reference,figure_adapters]",
        "tables=[table_causes]",
    ]
    assert run_command(words, main) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    assert "3 of 3 figures and tables" in capsys.readouterr().out
    for name in ("figure_reference", "figure_adapters"):
        with Image.open(out / "figures" / f"{name}.png") as image:
            assert image.width > 1000
    page = (out / "report.html").read_text()
    for name in ("figure_reference", "figure_adapters"):
        told = page.split(f'id="{name}"')[1].split("<figcaption>")[0]
        assert "early window" not in told
        assert "sdxl, ip adapter: adds most" in told or "decide no window" in told
    (run,) = (out / "runs").glob("sdxl-ip_adapter-3-*.zarr")
    study = xr.open_zarr(run / "interventions" / "style_window", group="analysis").load()
    for name in ("edited_reference_dinov2", "edited_reference_clip", "edited_style_gram"):
        assert np.isfinite(study[name]).all()
    assert "edited_similarity" not in study
