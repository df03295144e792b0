"""The one command runs every flow stage from an empty shelf, and leaves the published folders."""

import json
import subprocess
import sys

import pytest

from pocket.process import MODELS

STAGES = "base,guidance,critic,adapter,schnell,quality"
GIVEN = ("flux-dev/vae", "infinite-you/identity.onnx", "insightface", "readout")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A models folder with the networks only, and all that a smoke run adds to it."""
    root = tmp_path_factory.mktemp("pocket")
    for name in GIVEN:
        link = root / "models" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(MODELS / name)
    command = [sys.executable, "-m", "pocket.make", "--smoke", "--only", STAGES]
    command += ["--checkpoints", str(root / "kept"), "--models", str(root / "models")]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    return root


def test_every_stage_leaves_its_weights_where_the_published_ones_lie(made):
    wanted = [
        "flux-dev/transformer/diffusion_pytorch_model.safetensors",
        "flux-dev/text_encoder_2/model.safetensors",
        "flux-schnell/transformer/diffusion_pytorch_model.safetensors",
        "flux-schnell/vae/config.json",
        "infinite-you/InfuseNetModel/diffusion_pytorch_model.safetensors",
        "infinite-you/image_proj_model.bin",
    ]
    assert [name for name in wanted if not (made / "models" / name).exists()] == []


def test_quality_looks_at_every_backbone_with_and_without_the_adapter(made):
    told = json.loads((made / "kept" / "quality.json").read_text())
    assert {"dev-28", "dev-28 + adapter", "schnell-4", "schnell-4 + adapter"} <= set(
        told["pictures"]
    )
    for row in told["pictures"].values():
        mean, low, high = row["found"]
        assert 0 <= low <= mean <= high <= 1


def test_a_stage_that_always_begins_anew_cannot_be_continued():
    command = [sys.executable, "-m", "pocket.make", "--only", "critic", "--continue", "critic"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode != 0
    assert "'critic' cannot be continued; base, guidance, adapter, schnell can" in found.stderr


def test_an_unknown_stage_is_named():
    command = [sys.executable, "-m", "pocket.make", "--only", "bsae"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode != 0
    assert "no stage 'bsae'; there are vae, " in found.stderr
