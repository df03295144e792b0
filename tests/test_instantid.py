"""InstantID, typed as a user types it, gives what the published pipeline gave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from stepscope.probes import grid, models, plan
from stepscope.probes.adapters.instantid_network import IdentityNet
from stepscope.probes.faces import RAW, face_files
from tests.adapter_words import INSTANTID, PACK, instantid_words
from tests.models import REFERENCE
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
    after = np.concatenate([run.latents.values[0, 1:], run.final_latents.values])
    np.testing.assert_allclose(after, PUBLISHED[f"{name}/latents"][0], rtol=0, atol=1e-4)
    negative, positive = PUBLISHED[f"{name}/noise"]
    passes = run.velocity.sel(branch=["negative", "positive"]).values[0]
    np.testing.assert_allclose(passes, np.stack([negative, positive], 1), rtol=0, atol=1e-4)
    np.testing.assert_allclose(run.image[0] / 255, PUBLISHED[f"{name}/image"], atol=1 / 255)
    face = PUBLISHED[f"{name}/face_embedding"].ravel()
    np.testing.assert_allclose(run.face_embedding[0], face / np.linalg.norm(face), atol=1e-6)
    added = run.contribution[0, 0].max("branch")
    places = zip(added.injection_adapter.values, added.injection_block.values, added, strict=True)
    on = {(adapter, block) for adapter, block, x in places if x > 0}
    layers = {layer_of(str(block)) for adapter, block in on if adapter == "ip_adapter:0"}
    prefix = f"{name}/contribution/"
    assert layers == {key.removeprefix(prefix) for key in PUBLISHED if key.startswith(prefix)}
    networks = bool(case["controlnet_conditioning_scale"])
    assert any(adapter == "controlnet" for adapter, _ in on) == networks


def test_tokens_are_the_published_ones_and_not_of_a_normalised_face(tmp_path):
    study = study_of(of_case(CASES[0], tmp_path))
    files = face_files(study.faces)
    loaded = models.load(study, files, plan.latent_shape(plan.outline(study)), 1)
    faces, one = list(loaded.faces.values()), loaded.adapters["adapter"]
    one.given(study.adapter, loaded.pipe, faces, 2)
    tokens: Any = loaded.pipe.controlnet.identity
    np.testing.assert_allclose(tokens.numpy(), PUBLISHED["default/face_tokens"], rtol=0, atol=1e-5)
    assert np.linalg.norm(faces[0].given[RAW]) > 2


@pytest.fixture
def network_runs(monkeypatch) -> list[torch.nn.Module]:
    """One entry for every time that IdentityNet's blocks are run."""
    seen: list[torch.nn.Module] = []
    load = IdentityNet.from_pretrained.__func__

    def counted(kind: Any, *args: Any, **kwargs: Any) -> Any:
        network = load(kind, *args, **kwargs)
        network.conv_in.register_forward_pre_hook(lambda *_: seen.append(network))
        return network

    monkeypatch.setattr(IdentityNet, "from_pretrained", classmethod(counted))
    return seen


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["adapter.controlnet_scale=0"], 0),
        (["adapter.controlnet_window=[1,2]", "adapter.controlnet_window_unit=step"], 1),
        ([], 3),
    ],
)
def test_identitynet_runs_only_where_it_matters(words, runs, network_runs, typed, tmp_path):
    made = [*of_case(CASES[0], tmp_path), "steps=3", *words]
    assert typed(made).status == 0
    assert len(network_runs) == runs


def test_both_parts_off_are_no_adapter(typed, tmp_path):
    off = [*of_case(CASES[0], tmp_path), "adapter.scale=0", "adapter.controlnet_scale=0"]
    assert typed(off).status == 0
    kept = [w for w in off if not w.startswith(("adapter", "faces", "control_image", "out"))]
    assert typed([*kept, "adapter=none", "out=none.zarr"]).status == 0
    a, b = xr.open_zarr(tmp_path / "run.zarr"), xr.open_zarr("none.zarr")
    np.testing.assert_array_equal(a.final_latents, b.final_latents)


def test_each_photo_has_its_own_keypoints(typed, tmp_path):
    """Two photos in one batch, each as alone; and a photo as its drawing."""
    size = {"height": 128, "width": 96, "steps": 2}
    photos = [PORTRAITS / "00_0.png", PORTRAITS / "01_0.png"]
    words = instantid_words(
        adapter__encoder=PACK / "recognition.onnx", adapter__detector=PACK, **size
    )
    both = [*words, f"faces={listed(*photos)}", "batch_size=2", "out=both.zarr"]
    alone = [*words, f"faces={listed(photos[1])}", "out=alone.zarr"]
    for made in (both, alone):
        answer = typed(made)
        assert answer.status == 0, answer.err
    a, b = xr.open_zarr("both.zarr").load(), xr.open_zarr("alone.zarr").load()
    np.testing.assert_allclose(a.latents[1:], b.latents, rtol=1e-4, atol=1e-4)
    own = [*alone[:-1], f"control_image={photos[1]}", "out=own.zarr"]
    assert typed(own).status == 0
    c = xr.open_zarr("own.zarr").load()
    np.testing.assert_allclose(c.latents, b.latents, rtol=1e-3, atol=1e-2)


def wrong(folder: Path) -> dict[str, tuple[list[str], str]]:
    (folder / "empty").mkdir()
    sd = REFERENCE / "ip-adapter"
    return {
        "no folder": ([f"adapter.path={folder / 'nothing'}"], "no folder"),
        "no network": ([f"adapter.path={folder / 'empty'}"], "has no ControlNetModel"),
        "no keypoints": (["control_image=null"], "which has no keypoints for IdentityNet"),
        "another family": (["backbone=sd15", f"backbone.path={sd / 'sd15'}"], "is made for sdxl"),
        "an empty window": (
            ["adapter.controlnet_window=[1.0,0.5]"],
            "controlnet_window=[1.0, 0.5]",
        ),
        "a typo": (["adapter.controlnet_scal=1"], "controlnet_scale"),
    }


NAMES = ["no folder", "no network", "no keypoints", "another family", "an empty window", "a typo"]


@pytest.mark.parametrize("name", NAMES)
def test_mistakes_are_answered_in_one_line(name, typed, tmp_path):
    words, told = wrong(tmp_path)[name]
    answer = typed([*of_case(CASES[0], tmp_path), *words])
    assert answer.status == 2
    assert told in answer.line


def test_a_batch_is_planned_as_it_is_recorded(typed, tmp_path):
    words = [*of_case(CASES[1], tmp_path), "steps=1"]
    assert typed(words).status == 0
    run, found = xr.open_zarr(tmp_path / "run.zarr"), plan.outline(study_of(words))
    for key, (declared, shape) in found.variables.items():
        sizes = (1, *shape) if declared.dims[0] == "sample" else shape
        assert run[key].shape == sizes, key
    assert len(grid.cells(["face"], study_of(words).prompts, (0,))) == 1
