"""InstantID, typed as a user types it, gives what the published pipeline gave."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from stepscope.probes import grid, models, plan
from stepscope.probes.adapters import RunFacts
from stepscope.probes.adapters.instantid import InstantIDSettings
from stepscope.probes.adapters.instantid_network import IdentityNet
from stepscope.probes.faces import RAW, Face, face_files
from tests.adapter_words import INSTANTID, IP_ADAPTER, PACK, instantid, instantid_words
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
    controlnet = run.contribution.sel(injection=run.injection_adapter == "controlnet")
    assert bool((controlnet > 0).all()) == bool(case["controlnet_conditioning_scale"])


def rms(values: np.ndarray) -> np.ndarray:
    """Over positions, of the norm over channels, as a run has it; (row, position, channel) -> (row,)."""
    return np.sqrt((values.astype(float) ** 2).sum(-1).mean(-1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_the_image_branch_adds_is_published(case, typed, tmp_path):
    """Its norm in every layer and both passes, and over that of the text the recorded contribution."""
    assert typed([*of_case(case, tmp_path), "steps=1"]).status == 0
    run, prefix = xr.open_zarr(tmp_path / "run.zarr").load(), f"{case['name']}/contribution/"
    run = run.sel(branch=["negative", "positive"]).isel(sample=0, step=0)
    wanted = {
        key.removeprefix(prefix): rms(value)
        for key, value in PUBLISHED.items()
        if key.startswith(prefix)
    }
    none = np.zeros(2)
    image = run.attention_norm.sel(stream="image_prompt")
    text = run.attention_norm.sel(stream="text")
    added = run.contribution.sel(injection=run.injection_adapter == "ip_adapter:0")
    assert len(wanted) in (0, added.sizes["injection"])
    for i, block in enumerate(added.injection_block.values):
        published = wanted.get(layer_of(str(block)), none)
        here = {"block": list(run.block.values).index(block)}
        np.testing.assert_allclose(image.isel(here), published, rtol=2e-5)
        np.testing.assert_allclose(added[:, i] * text.isel(here), published, rtol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_tokens_and_residuals_are_published(case, tmp_path):
    study = study_of(of_case(case, tmp_path))
    files = face_files(study.faces)
    loaded = models.load(study, files, plan.latent_shape(plan.outline(study)), 1)
    seen: list[Any] = []
    loaded.pipe.controlnet.register_forward_hook(lambda module, args, given: seen.append(given[1]))
    with loaded.ready() as call:
        loaded.sample(grid.cells(list(files), study.prompts, study.seeds), call)
    published, name = loaded.pipe.controlnet.identity, case["name"]
    np.testing.assert_allclose(published, PUBLISHED[f"{name}/face_tokens"], rtol=0, atol=1e-5)
    middle = PUBLISHED[f"{name}/mid_residual"]
    for call_number, made in enumerate(seen):
        made = np.zeros_like(middle[:, 0]) if made is None else made
        np.testing.assert_allclose(made, middle[:, call_number], rtol=0, atol=1e-5)
    assert len(seen) == case["steps"]


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


PARTS = {
    "image branch": ("*.image_prompt", "adapter.scale=0"),
    "IdentityNet": ("['skip.*.adapter','mid.adapter']", "adapter.controlnet_scale=0"),
}


@pytest.mark.parametrize("part", PARTS)
def test_zeros_where_a_part_adds_are_that_part_off(part, typed, tmp_path):
    sites, off = PARTS[part]
    words = [*of_case(CASES[0], tmp_path), "steps=2"]
    assert typed([*words, f"edits=[{{sites: {sites}, do: zero}}]", "out=zero.zarr"]).status == 0
    assert typed([*words, off, "out=off.zarr"]).status == 0
    a, b = (xr.open_zarr(f"{name}.zarr").final_latents for name in ("zero", "off"))
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-4)


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
    words = [*instantid(tmp_path, ["0", "1"]), "steps=1"]
    assert typed([*words, "out=whole.zarr"]).status == 0
    sample, made = models.Models.sample, []

    def once(*args: Any, **more: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(True)
        return sample(*args, **more)

    with monkeypatch.context() as broken:
        broken.setattr(models.Models, "sample", once)
        assert typed([*words, "out=run.zarr"]).status == 130
    assert xr.open_zarr("run.zarr").done.values.tolist() == [True, False]
    assert typed([*words, "out=run.zarr"]).status == 0
    a, b = (xr.open_zarr(f"{name}.zarr").final_latents for name in ("whole", "run"))
    np.testing.assert_array_equal(a, b)


def test_an_embedding_needs_no_keypoints_where_nobody_sees_them(typed, tmp_path):
    words = [*of_case(CASES[1], tmp_path), "steps=1"]
    assert typed(words).status == 0
    none = ["control_image=null", "control_image_kind=photo", "out=none.zarr"]
    answer = typed([*words, *none])
    assert answer.status == 0, answer.err
    a, b = (xr.open_zarr(f"{name}.zarr").final_latents for name in ("run", "none"))
    np.testing.assert_array_equal(a, b)


def test_a_normalised_embedding_is_doubted(typed, tmp_path):
    words = of_case(CASES[1], tmp_path)
    face = np.load(tmp_path / "face.npy")
    np.save(tmp_path / "face.npy", face / np.linalg.norm(face))
    answer = typed([*words, "steps=1"])
    assert "face face: its embedding is of unit norm" in answer.err


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


def test_each_photo_has_its_own_keypoints(typed, tmp_path):
    """Two photos in one batch: the second is as alone with its photo named as the control image."""
    photos = [PORTRAITS / "00_0.png", PORTRAITS / "01_0.png"]
    words = instantid_words(
        adapter__encoder=PACK / "recognition.onnx",
        adapter__detector=PACK,
        height=128,
        width=96,
        steps=1,
        adapter__controlnet_scale=2.0,
    )
    runs = {
        "both": [f"faces={listed(*photos)}", "batch_size=2"],
        "own": [f"faces={listed(photos[1])}", f"control_image={photos[1]}"],
        "other": [f"faces={listed(photos[1])}", f"control_image={photos[0]}"],
    }
    for name, more in runs.items():
        answer = typed([*words, *more, f"out={name}.zarr"])
        assert answer.status == 0, answer.err
    both, own, other = (xr.open_zarr(f"{name}.zarr").final_latents.values for name in runs)
    near, far = (np.abs(both[1] - one[0]).max() for one in (own, other))
    # the detector looks at the photo, or at the photo as it is fitted: keypoints differ by parts of a pixel
    assert near < 1e-2
    assert far > 5 * near


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
