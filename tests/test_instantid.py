"""InstantID, typed as a user types it, gives what the published pipeline gave."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from stepscope.hooks import Edit, Scale, edit
from stepscope.probes import grid, models, plan
from stepscope.probes.adapters import RunFacts
from stepscope.probes.adapters.instantid import InstantIDSettings
from stepscope.probes.control import load_control
from stepscope.probes.faces import RAW, Face, Finder, face_files
from tests.adapter_words import INSTANTID, IP_ADAPTER, PACK, instantid, instantid_words
from tests.published import assert_unet_run
from tests.shell import Words, listed, study_of
from tests.test_faces import PORTRAITS
from tests.test_ip_adapter import layer_of

CASES: list[dict[str, Any]] = json.loads((INSTANTID / "cases.json").read_text())
PUBLISHED = np.load(INSTANTID / "reference.npz")


def of_case(case: dict[str, Any], folder: Path) -> Words:
    """A published case as a command line."""
    name = case["name"]
    np.save(folder / "face.npy", PUBLISHED[f"{name}/face_embedding"].ravel())
    np.save(folder / "noise.npy", PUBLISHED[f"{name}/initial_latents"])
    Image.fromarray(PUBLISHED[f"{name}/keypoint_image"]).save(folder / "keypoints.png")
    return instantid_words(
        adapter__scale=case["ip_adapter_scale"],
        adapter__controlnet_scale=case["controlnet_conditioning_scale"],
        faces=listed(folder / "face.npy"),
        control_image=folder / "keypoints.png",
        initial_latents=folder / "noise.npy",
        prompts=listed(case["prompt"]),
        steps=case["steps"],
        true_cfg=case["guidance"],
        height=case["height"],
        width=case["width"],
        record__velocity="true",
        out=folder / "run.zarr",
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_latents_are_the_published_ones(case, typed, tmp_path):
    answer = typed(of_case(case, tmp_path))
    assert answer.status == 0, answer.err
    run, name = xr.open_zarr(tmp_path / "run.zarr").load(), case["name"]
    assert_unet_run(run, PUBLISHED, name)
    face = PUBLISHED[f"{name}/face_embedding"].ravel()
    np.testing.assert_allclose(run.face_embedding[0], face / np.linalg.norm(face), atol=1e-6)
    controlnet = run.contribution.sel(injection=run.injection_adapter == "controlnet")
    assert bool((controlnet > 0).all()) == bool(case["controlnet_conditioning_scale"])
    check_image_branch(run.sel(branch=["negative", "positive"]).isel(sample=0, step=0), name)


def check_image_branch(step: xr.Dataset, name: str) -> None:
    """In each layer and pass it adds what has the published norm, also by the ratio to the text."""
    prefix = f"{name}/contribution/"
    wanted = {
        key.removeprefix(prefix): norms(value)
        for key, value in PUBLISHED.items()
        if key.startswith(prefix)
    }
    image, text = (step.attention_norm.sel(stream=name) for name in ("image_prompt", "text"))
    added = step.contribution.sel(injection=step.injection_adapter == "ip_adapter:0")
    assert len(wanted) in (0, added.sizes["injection"])
    for i, block in enumerate(added.injection_block.values):
        published = wanted.get(layer_of(str(block)), np.zeros(2))
        here = {"block": list(step.block.values).index(block)}
        np.testing.assert_allclose(image.isel(here), published, rtol=2e-5)
        np.testing.assert_allclose(added[:, i] * text.isel(here), published, rtol=2e-5)


def norms(values: np.ndarray) -> np.ndarray:
    """Of each row's tokens: root mean square, as a run has it; from (row, token, channel)."""
    return np.sqrt((values.astype(float) ** 2).sum(-1).mean(-1))


def loaded(words: Words) -> tuple[models.Models, list[grid.Cell]]:
    study = study_of(words)
    files = face_files(study.faces)
    cells = grid.cells(list(files), study.prompts, study.seeds)
    shape = plan.latent_shape(plan.outline(study))
    return models.load(study, files, shape, len(cells)), cells


def final(ours: models.Models, cells: list[grid.Cell], *edits: Edit, **settings: Any) -> np.ndarray:
    """The last latents, under edits or with other settings of the adapter."""
    adapter: Any = ours.study.adapter
    adapter = replace(adapter, **settings)
    changed = replace(ours, study=replace(ours.study, adapter=adapter))
    with changed.ready() as call, edit(ours.pipe, list(edits)) if edits else nullcontext():
        return np.asarray(changed.sample(cells, {**call, "output_type": "latent"}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_tokens_and_residuals_are_published(case, tmp_path):
    (ours, cells), seen = loaded(of_case(case, tmp_path)), []
    ours.pipe.controlnet.register_forward_hook(lambda module, args, given: seen.append(given[1]))
    final(ours, cells)
    tokens, name = ours.pipe.controlnet.identity, case["name"]
    np.testing.assert_allclose(tokens, PUBLISHED[f"{name}/face_tokens"], rtol=0, atol=1e-5)
    middle = PUBLISHED[f"{name}/mid_residual"]
    assert len(seen) == case["steps"]
    for i, made in enumerate(seen):
        made = np.zeros_like(middle[:, 0]) if made is None else made
        # residuals reach 5, and the step's latents are equal to 4e-5
        np.testing.assert_allclose(made, middle[:, i], rtol=0, atol=5e-5)


def test_identitynet_runs_only_where_it_matters(tmp_path):
    (ours, cells), runs = loaded([*of_case(CASES[0], tmp_path), "steps=3"]), []
    ours.pipe.controlnet.conv_in.register_forward_pre_hook(lambda *_: runs.append(1))

    def count(**settings: Any) -> int:
        runs.clear()
        final(ours, cells, **settings)
        return len(runs)

    assert count() == 3
    assert count(scale=0.0) == 3
    assert count(controlnet_scale=0.0) == 0
    assert count(controlnet_window=(1, 2), controlnet_window_unit="step") == 1
    assert count(controlnet_window=(0.0, 0.1)) == 0


def test_zeros_where_a_part_adds_are_that_part_off(tmp_path):
    ours, cells = loaded([*of_case(CASES[0], tmp_path), "steps=2"])
    zero = Scale(0.0)
    branch = final(ours, cells, Edit("*.image_prompt", zero))
    np.testing.assert_allclose(branch, final(ours, cells, scale=0.0), rtol=0, atol=2e-4)
    network = final(ours, cells, Edit(("skip.*.adapter", "mid.adapter"), zero))
    off = final(ours, cells, controlnet_scale=0.0)
    np.testing.assert_allclose(network, off, rtol=0, atol=2e-4)
    assert np.abs(branch - network).max() > 1e-2


def test_each_part_has_its_own_window(typed, tmp_path):
    words = [*of_case(CASES[0], tmp_path), "steps=2"]
    words += ["adapter.window=[0,1]", "adapter.window_unit=step"]
    words += ["adapter.controlnet_window=[1,2]", "adapter.controlnet_window_unit=step"]
    answer = typed(words)
    assert answer.status == 0, answer.err
    assert "this part of instantid runs in 1 of 2 steps: 0" in answer.out
    assert "this part of instantid, controlnet, runs in 1 of 2 steps: 1" in answer.out
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    on = (run.contribution[0].max("branch") > 0).groupby("injection_adapter").all()
    assert on.sel(injection_adapter="ip_adapter:0").values.tolist() == [True, False]
    assert on.sel(injection_adapter="controlnet").values.tolist() == [False, True]


def test_settings_of_both_parts():
    one = InstantIDSettings(
        "a", "b", scale=0.0, controlnet_window=(1, 2), controlnet_window_unit="step"
    )
    assert one.is_on
    assert one.strength == one.controlnet_scale
    assert one.steps_on([3.0, 2.0, 1.0]) == [1]
    assert one.always_on().steps_on([3.0, 2.0, 1.0]) == [0, 1, 2]
    assert not one.off().is_on


def test_an_interrupted_run_goes_on(typed, tmp_path, monkeypatch):
    words = [*instantid(tmp_path, ["0", "1"]), "steps=1", "out=run.zarr"]
    sample, made = models.Models.sample, []

    def once(*args: Any, **more: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(True)
        return sample(*args, **more)

    with monkeypatch.context() as broken:
        broken.setattr(models.Models, "sample", once)
        assert typed(words).status == 130
    assert xr.open_zarr("run.zarr").done.values.tolist() == [True, False]
    assert typed(words).status == 0
    ours, cells = loaded(words)
    whole = [final(ours, [cell])[0] for cell in cells]
    np.testing.assert_array_equal(xr.open_zarr("run.zarr").final_latents, whole)


def test_an_embedding_needs_no_keypoints_where_nobody_sees_them(tmp_path):
    none = ["control_image=null", "control_image_kind=photo"]
    made = final(*loaded([*of_case(CASES[1], tmp_path), *none]))
    np.testing.assert_allclose(made, PUBLISHED["ip_only/latents"][:, -1], rtol=0, atol=1e-4)


def test_a_normalised_embedding_is_doubted():
    facts = RunFacts("sdxl", torch.float32, "cpu", 64, 64, control_image="keypoints.png")
    unit = np.full(512, 1 / np.sqrt(512), np.float32)
    for length, told in ((22.0, ""), (1.0, "its embedding is of unit norm")):
        face = Face("a", unit, None, {"source": "embedding"}, 0.0, {RAW: length * unit})
        doubt = InstantIDSettings("a", "b").doubt(face, facts)
        assert doubt.startswith(told)
        assert bool(doubt) == bool(told)


def test_a_face_that_is_cut_off_is_doubted():
    facts = RunFacts("sdxl", torch.float32, "cpu", 64, 64)
    raw = {RAW: np.full(512, 1.0, np.float32)}
    for top, told in ((90, ""), (2, "it reaches out of 64 x 64 pixels")):
        points = [[20, top], [40, top], [30, top + 10], [22, top + 20], [38, top + 20]]
        found = {"keypoints": points, "picture": [64, 192]}
        face = Face("a", raw[RAW] / np.sqrt(np.float32(512)), None, found, 0.0, raw)
        assert InstantIDSettings("a", "b").doubt(face, facts).startswith(told)
        assert bool(InstantIDSettings("a", "b").doubt(face, facts)) == bool(told)
        assert not InstantIDSettings("a", "b", controlnet_scale=0.0).doubt(face, facts)


def test_each_photo_has_its_own_keypoints(tmp_path):
    """IdentityNet sees in each row what it would see were the row's photo named as the control image."""
    photos = [PORTRAITS / "00_0.png", PORTRAITS / "01_0.png"]
    words = instantid_words(
        adapter__encoder=PACK / "recognition.onnx",
        adapter__detector=PACK,
        faces=listed(*photos),
        height=128,
        width=96,
        steps=1,
    )
    (ours, cells), seen = loaded(words), []
    ours.pipe.controlnet.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["controlnet_cond"]), with_kwargs=True
    )
    final(ours, cells)
    shown = torch.stack(seen[0].chunk(2)).permute(0, 1, 3, 4, 2).numpy()
    finder = Finder(str(PACK), "", "cpu")
    named = [
        np.asarray(load_control(str(photo), "photo", (96, 128), finder).image) / 255
        for photo in photos
    ]
    # the detector looks at the photo, or at the photo as it is fitted: some differ by a pixel
    apart = np.array([[np.abs(a - b).mean() for b in named] for a in shown[1]])
    assert (np.diag(apart) < 0.01).all()
    assert (apart[[0, 1], [1, 0]] > 3 * np.diag(apart).max()).all()
    np.testing.assert_array_equal(shown[0], shown[1])
    for face in ours.faces.values():
        raw = face.given[RAW]
        np.testing.assert_allclose(face.embedding, raw / np.linalg.norm(raw), atol=1e-6)
        assert abs(np.linalg.norm(raw) - 1) > 0.01


def copied(folder: Path, name: str) -> Path:
    """InstantID's folder, to be spoilt."""
    return Path(shutil.copytree(INSTANTID / "instantid", folder / name))


def spoilt(folder: Path, name: str) -> Path:
    """A folder with something that is not InstantID's in it, or missing from it."""
    root = copied(folder, "spoilt")
    file = root / "ip-adapter.bin"
    if name == "no network":
        shutil.rmtree(root / "ControlNetModel")
    elif name == "no branch":
        file.unlink()
    elif name == "half a branch":
        file.write_bytes(file.read_bytes()[:1000])
    elif name in ("plain", "plus"):
        kind = {"plain": "ip-adapter_sdxl.bin", "plus": "ip-adapter-plus_sdxl.bin"}[name]
        shutil.copyfile(IP_ADAPTER / "adapters" / kind, file)
    else:
        config = root / "ControlNetModel" / "config.json"
        changed = {"1.5's": {"addition_embed_type": None}, "wider": {"cross_attention_dim": 48}}[
            name
        ]
        config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    return root


SPOILT = {
    "no network": "has no ControlNetModel",
    "no branch": "has no ip-adapter.bin",
    "half a branch": "cannot be read",
    "plain": "its ip-adapter.bin is an IP-Adapter of pictures",
    "plus": "its ip-adapter.bin is an IP-Adapter of pictures",
    "1.5's": "its ControlNetModel is no ControlNet of SDXL",
    "wider": "its cross_attention_dim is 48, the backbone's 32",
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_wrong_folder_is_refused_in_one_line(name, typed, tmp_path):
    answer = typed([*of_case(CASES[0], tmp_path), f"adapter.path={spoilt(tmp_path, name)}"])
    assert answer.status == 2
    assert SPOILT[name] in answer.line
    assert "step" not in answer.err


WRONG = {
    "no folder": (["adapter.path=/no/folder"], "no folder '/no/folder'"),
    "no keypoints": (["control_image=null"], "which has no keypoints for IdentityNet"),
    "an empty window": (["adapter.controlnet_window=[1.0,0.5]"], "controlnet_window=[1.0, 0.5]"),
    "a window's unit": (["adapter.controlnet_window_unit=stpe"], "did you mean 'step'"),
    "a typing error": (["adapter.controlnet_scal=1"], "controlnet_scale"),
    "an idle edit": (
        ["adapter.controlnet_scale=0", "edits=[{sites: skip.00.adapter, do: zero}]"],
        "would touch nothing in steps 0 to 4: the adapter is on in no step (adapter.controlnet_scale=0.0",
    ),
    "two image prompts": (
        ["adapter=[instantid,ip_adapter]"],
        "beside.ip_adapter: instantid brings an image prompt",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_answered_in_one_line(name, typed, tmp_path):
    words, told = WRONG[name]
    answer = typed([*of_case(CASES[0], tmp_path), *words])
    assert answer.status == 2
    assert told in answer.line
