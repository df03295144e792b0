"""PuLID, typed as a user types it, gives what the published code gave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from tests.adapter_words import PACK, PULID, pulid_face, pulid_words
from tests.shell import Words, listed
from tests.test_infinite_you import unpacked

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
    after = np.concatenate([run.latents.values[0, 1:], run.final_latents.values])
    expected = unpacked(PUBLISHED[f"{name}/latents"], case)
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-4)
    velocity = run.velocity.values[0].reshape(-1, *expected.shape[1:])  # positive, negative, ...
    calls = unpacked(PUBLISHED[f"{name}/velocity"], case)
    np.testing.assert_allclose(velocity, calls, rtol=0, atol=1e-4)
    np.testing.assert_allclose(run.sigma, PUBLISHED[f"{name}/sigmas"][:-1], rtol=1e-5)
    on = run.contribution[0].max(["branch", "injection"]).values > 0
    assert on.tolist() == [step >= case["start_step"] for step in range(case["steps"])]


WRONG = {
    "no face": (["faces=[face.png]"], "no detector"),
    "another embedding": (["faces=[face.npy]"], "PuLID reads a photo, or a .npz with id_cond"),
    "no parsing": (["faces=[face.png]", f"adapter.detector={PACK}"], "parsing_bisenet.pth"),
    "another file": (["adapter.path={noise}"], "adapter"),
    "no file": (["adapter.path=/no/pulid.safetensors"], "no file '/no/pulid.safetensors'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_answered_in_one_line(name, typed, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "face.png")
    np.save(tmp_path / "face.npy", np.ones(512, np.float32))
    vae = PULID.parent / "ip-adapter/sd15/vae/diffusion_pytorch_model.safetensors"
    words, told = WRONG[name]
    own = pulid_words(tmp_path, faces=listed(pulid_face(tmp_path, 0)))
    answer = typed([*own, *(word.format(noise=vae) for word in words)])
    assert answer.status == 2
    assert told in answer.line
