"""InfuseNet, typed as a user types it, gives what the published pipeline gave."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import FluxPipeline
from PIL import Image

from stepscope.probes.adapters.infusenet_network import InfuseNet
from stepscope.probes.control import drawn
from stepscope.probes.faces import Finder
from tests.models import INFINITE_YOU
from tests.shell import PUBLISHED, infused, listed, run_command, tiny
from tests.test_faces import PACK, PORTRAITS

PUBLISHED_CASES: list[dict[str, Any]] = json.loads((INFINITE_YOU / "cases.json").read_text())


def of_case(case: dict[str, Any], folder: Path) -> list[str]:
    """A published case as a command line."""
    name = case["name"]
    np.save(folder / "face.npy", PUBLISHED[f"{name}/face_embedding"].reshape(512))
    np.save(folder / "noise.npy", PUBLISHED[f"{name}/initial_latents"][0])
    words = infused(
        case["backbone"],
        faces=listed(folder / "face.npy"),
        initial_latents=folder / "noise.npy",
        prompts=listed(case["prompt"]),
        seeds=[case["seed"]],
        steps=case["steps"],
        height=case["height"],
        width=case["width"],
        adapter__scale=case.get("scale", 1.0),
        adapter__window=f"[{case.get('start', 0.0)},{case.get('end', 1.0)}]",
        guidance=case.get("guidance"),
        true_cfg=case.get("true_cfg", 1.0),
        negative_prompt=case.get("negative"),
        record__velocity="true",
        out=folder / "run.zarr",
    )
    if case.get("control"):
        Image.fromarray(PUBLISHED[f"{name}/control_image"]).save(folder / "control.png")
        words += [f"control_image={folder / 'control.png'}", "control_image_kind=keypoints"]
    return words


def unpacked(packed: np.ndarray, case: dict[str, Any]) -> np.ndarray:
    """(1, n, token, 16) as the reference has them to (n, channel, y, x)."""
    tokens = torch.from_numpy(packed[0])
    return FluxPipeline._unpack_latents(tokens, case["height"], case["width"], 4).numpy()


@pytest.mark.parametrize("case", PUBLISHED_CASES, ids=lambda case: case["name"])
def test_latents_are_the_published_ones(case, typed, tmp_path):
    answer = typed(of_case(case, tmp_path))
    assert answer.status == 0, answer.err
    run = xr.open_zarr(tmp_path / "run.zarr").load()
    name = case["name"]
    after = np.concatenate([run.latents.values[0, 1:], run.final_latents.values])
    np.testing.assert_array_equal(run.latents[0, 0], PUBLISHED[f"{name}/initial_latents"][0])
    expected = unpacked(PUBLISHED[f"{name}/latents"], case)
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-5)
    velocity = run.velocity.values[0].reshape(-1, *expected.shape[1:])  # positive, negative, ...
    calls = unpacked(PUBLISHED[f"{name}/velocity"], case)
    np.testing.assert_allclose(velocity, calls, rtol=0, atol=1e-4)
    np.testing.assert_allclose(run.timestep, PUBLISHED[f"{name}/timesteps"], rtol=1e-6)
    np.testing.assert_allclose(run.image[0] / 255, PUBLISHED[f"{name}/image"], atol=1 / 255)
    np.testing.assert_array_equal(
        run.face_embedding[0], PUBLISHED[f"{name}/face_embedding"].ravel()
    )


def test_a_photo_is_its_drawing(typed, tmp_path, face):
    """From the photo, as published: the same latents as from its face's keypoints, drawn by hand."""
    photo, size = PORTRAITS / "00_0.png", {"height": 160, "width": 128, "steps": 1}
    padded = Image.new("RGB", (128, 160), "white")
    padded.paste(Image.open(photo).convert("RGB"), (0, 16))
    keypoints, _ = Finder(str(PACK), "", "cpu").find(np.asarray(padded)[:, :, ::-1].copy(), "")
    drawn(keypoints, (128, 160)).save(tmp_path / "drawn.png")
    kinds = {
        "photo": {"control_image": photo},
        "drawing": {"control_image": "drawn.png", "control_image_kind": "keypoints"},
        "black": {},
        "pixels": {"control_image": photo, "control_image_kind": "keypoints"},
    }
    ends = {}
    for name, words in kinds.items():
        answer = typed(
            infused(faces=listed(face), adapter__detector=PACK, out=f"{name}.zarr", **size, **words)
        )
        assert answer.status == 0, answer.err
        ends[name] = xr.open_zarr(f"{name}.zarr").final_latents.values
    np.testing.assert_array_equal(ends["photo"], ends["drawing"])
    apart = [np.abs(ends["photo"] - ends[name]).max() for name in ("black", "pixels")]
    assert min(apart) > 1e-3


@pytest.fixture
def network_runs(monkeypatch) -> list[InfuseNet]:
    """One entry for every time that InfuseNet's blocks are run."""
    seen: list[InfuseNet] = []
    load = InfuseNet.from_pretrained.__func__

    def counted(kind: Any, *args: Any, **kwargs: Any) -> Any:
        network = load(kind, *args, **kwargs)
        network.transformer_blocks[0].register_forward_pre_hook(lambda *_: seen.append(network))
        return network

    monkeypatch.setattr(InfuseNet, "from_pretrained", classmethod(counted))
    return seen


WINDOWS = {
    "scale 0": ({"adapter__scale": 0}, 0),
    "before the run": ({"adapter__window": "[0.0,0.0]"}, 0),
    "past the run": ({"adapter__window": "[9,12]", "adapter__window_unit": "step"}, 0),
    "no such sigma": ({"adapter__window": "[0.1,0.05]", "adapter__window_unit": "sigma"}, 0),
    "steps 1 and 2": ({"adapter__window": "[1,3]", "adapter__window_unit": "step"}, 2),
    "second half": ({"adapter__window": "[0.5,1.0]"}, 2),
    "noisiest sigma": ({"adapter__window": "[1.0,0.99]", "adapter__window_unit": "sigma"}, 1),
    "always": ({}, 4),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> xr.Dataset:
    """The same run without the adapter."""
    out = tmp_path_factory.mktemp("plain") / "run.zarr"
    assert run_command(tiny(steps=4, out=out)) == 0
    return xr.open_zarr(out).load()


@pytest.mark.parametrize("name", WINDOWS)
def test_adapter_runs_only_where_it_matters(name, typed, tmp_path, face, network_runs, plain):
    """Where it never does, the output is bit for bit what it is without the adapter."""
    changed, steps = WINDOWS[name]
    words = infused(faces=listed(face), steps=4, out=tmp_path / "with.zarr", **changed)
    assert typed(words).status == 0
    assert len(network_runs) == steps
    seen = xr.open_zarr(tmp_path / "with.zarr").load()
    same = [
        seen.latents[0, i].values.tobytes() == plain.latents[0, i].values.tobytes()
        for i in range(4)
    ]
    same.append(seen.final_latents.values.tobytes() == plain.final_latents.values.tobytes())
    first = {"steps 1 and 2": 1, "second half": 2}.get(name, 0 if steps else 4)
    assert same == [i <= first for i in range(5)]
    assert (seen.image.values.tobytes() == plain.image.values.tobytes()) == (steps == 0)
    ran = seen.adapter_attention_norm.sel(stream="identity").notnull().all("adapter_block")
    assert int(ran.sum()) == steps
