"""PuLID, typed as a user types it, gives what the published code gave."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from safetensors.torch import save_file

from stepscope.probes import models
from stepscope.probes.adapters.eva_clip import EvaClip
from stepscope.probes.adapters.pulid_faces import CLIP, HIDDEN
from stepscope.probes.adapters.pulid_network import Pulid, sizes_of
from stepscope.probes.faces import RAW, face_files
from tests.adapter_words import PACK, PULID, pulid_face, pulid_words
from tests.published import trajectory
from tests.shell import Words, listed, study_of
from tests.test_faces import PORTRAITS
from tests.test_infinite_you import unpacked
from tests.test_pulid_encoder import filled

CASES: list[dict[str, Any]] = json.loads((PULID / "cases.json").read_text())
PUBLISHED = np.load(PULID / "reference.npz")


def of_case(case: dict[str, Any], folder: Path) -> Words:
    """A published case as a command line."""
    name = case["name"]
    parts = {key: PUBLISHED[f"{name}/{key}"] for key in ("id_cond", "id_vit_hidden")}
    np.savez(folder / "face.npz", **parts)
    np.save(folder / "noise.npy", PUBLISHED[f"{name}/initial_latents"])
    steps = case["steps"]
    return pulid_words(
        folder,
        case["backbone"],
        adapter__scale=case["id_weight"],
        adapter__window=f"[{case['start_step']},{steps}]",
        adapter__window_unit="step",
        faces=listed(folder / "face.npz"),
        initial_latents=folder / "noise.npy",
        prompts=listed(case["prompt"]),
        negative_prompt=case.get("negative"),
        steps=steps,
        guidance=case.get("guidance"),
        true_cfg=case.get("true_cfg", 1.0),
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
    expected = unpacked(PUBLISHED[f"{name}/latents"], case)
    np.testing.assert_allclose(trajectory(run), expected, rtol=0, atol=1e-4)
    velocity = run.velocity.values[0].reshape(-1, *expected.shape[1:])  # positive, negative, ...
    calls = unpacked(PUBLISHED[f"{name}/velocity"], case)
    np.testing.assert_allclose(velocity, calls, rtol=0, atol=1e-4)
    np.testing.assert_allclose(run.sigma, PUBLISHED[f"{name}/sigmas"][:-1], rtol=1e-5)
    on = run.contribution[0].max(["branch", "injection"]).values > 0
    assert on.tolist() == [step >= case["start_step"] for step in range(case["steps"])]


def test_what_it_adds_is_kept_whole(typed, tmp_path):
    case = next(case for case in CASES if case["name"] == "dev_late")
    sites = ["record=full", "record.sites=['*.image.pulid']"]
    planned = typed([*of_case(case, tmp_path), *sites, "--dry"])
    assert planned.status == 0, planned.err
    answer = typed([*of_case(case, tmp_path), *sites])
    assert answer.status == 0, answer.err
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    names = [str(name) for name in run.injection.values]
    assert {name for name in run if str(name).endswith(".pulid")} == {*names}
    kept = np.stack([run[name].values for name in names], -3)  # (sample, step, branch, place, ...)
    first = PUBLISHED[f"{case['name']}/contribution"] * case["id_weight"]
    np.testing.assert_allclose(kept[0, case["start_step"], 0], first[0], rtol=0, atol=1e-4)
    for name in names:
        (line,) = (line for line in planned.out.splitlines() if line.split()[:1] == [name])
        sizes = [int(word) for word in line.split() if word.isdecimal()]
        assert sizes[-2:] == [*run[name].shape[-2:]]


def test_a_photo_is_what_the_encoder_makes_of_it(typed, tmp_path):
    """Of random networks: EVA-CLIP's hidden states are 128 wide here, and so is what IDFormer reads."""
    torch.manual_seed(0)
    network = Pulid(replace(sizes_of(PULID / "pulid_flux_tiny.safetensors"), vit=128))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_file(network.state_dict(), tmp_path / "pulid.safetensors")
    tower = EvaClip(width=128, inner=341, depth=22, side=14, grid=4, output=768)
    weights = {f"visual.{name}": w for name, w in filled(tower.state_dict()).items()}
    torch.save(weights, tmp_path / "eva.pt")
    words = pulid_words(
        tmp_path,
        adapter__path=tmp_path / "pulid.safetensors",
        adapter__encoder=PACK / "recognition.onnx",
        adapter__clip=tmp_path / "eva.pt",
        adapter__parsing="null",
        adapter__detector=PACK,
    )
    photo = [*words, f"faces={listed(PORTRAITS / '00_0.png')}"]
    answer = typed([*photo, "out=photo.zarr"])
    assert answer.status == 0, answer.err
    run = xr.open_zarr("photo.zarr").load()
    assert run.face_crop.values.any()
    study = study_of(photo)
    face = models.faces_of(study, face_files(study.faces), "cpu")["00_0"]
    parts = [face.given[name] for name in (RAW, CLIP)]
    np.savez("face.npz", id_cond=np.concatenate(parts), id_vit_hidden=face.given[HIDDEN])
    assert typed([*words, "faces=[face.npz]", "out=given.zarr"]).status == 0
    given = xr.open_zarr("given.zarr").load()
    np.testing.assert_allclose(given.final_latents, run.final_latents, rtol=0, atol=1e-6)


WRONG = {
    "no detector": (["faces=[face.png]"], "adapter.detector"),
    "another embedding": (["faces=[face.npy]"], "PuLID reads a photo, or a .npz with id_cond"),
    "no EVA-CLIP": (
        ["faces=[face.png]", f"adapter.detector={PACK}", "adapter.clip=/no/eva.pt"],
        "no file '/no/eva.pt'",
    ),
    "nobody": (["faces=[nobody.npz]"], "its face embedding is all zeros"),
    "another EVA-CLIP": (
        ["faces=[narrow.npz]"],
        "is 600 numbers and tokens of 20, and adapter.path reads 1280",
    ),
    "a damaged file": (["faces=[cut.npz]"], "cannot be read as a .npz with id_cond"),
    "another file": (["adapter.path={noise}"], "adapter"),
    "no file": (["adapter.path=/no/pulid.safetensors"], "no file '/no/pulid.safetensors'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_answered_in_one_line(name, typed, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "face.png")
    np.save(tmp_path / "face.npy", np.ones(512, np.float32))
    hidden = np.zeros((5, 17, 20), np.float32)
    np.savez(tmp_path / "nobody.npz", id_cond=np.zeros(1280, np.float32), id_vit_hidden=hidden)
    np.savez(tmp_path / "narrow.npz", id_cond=np.ones(600, np.float32), id_vit_hidden=hidden)
    whole = pulid_face(tmp_path, 1).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    vae = PULID.parent / "ip-adapter/sd15/vae/diffusion_pytorch_model.safetensors"
    words, told = WRONG[name]
    own = pulid_words(tmp_path, faces=listed(pulid_face(tmp_path, 0)))
    answer = typed([*own, *(word.format(noise=vae) for word in words)])
    assert answer.status == 2
    assert told in answer.line
