"""The one command runs every flow stage from an empty shelf, and leaves the published folders."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stepscope.pocket import make, training
from stepscope.pocket.process import MODELS

GIVEN = ("flux-dev/vae", "infinite-you/identity.onnx", "insightface", "readout")
WEIGHTS = (
    "flux-dev/transformer/diffusion_pytorch_model.safetensors",
    "flux-dev/text_encoder_2/model.safetensors",
    "flux-schnell/transformer/diffusion_pytorch_model.safetensors",
    "flux-schnell/vae/config.json",
    "infinite-you/InfuseNetModel/diffusion_pytorch_model.safetensors",
    "infinite-you/image_proj_model.bin",
)


def shelf(root: Path) -> list[str]:
    """Words for a smoke run of all flow stages on a models folder that has the networks only."""
    for name in GIVEN:
        link = root / "models" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(MODELS / name)
    words = ["--smoke", "--only", ",".join(make.FLOWS)]
    return [*words, "--checkpoints", str(root / "kept"), "--models", str(root / "models")]


def lacking(root: Path) -> list[str]:
    return [name for name in WEIGHTS if not (root / "models" / name).exists()]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """All that a run of one training step a stage leaves, in this process."""
    root = tmp_path_factory.mktemp("pocket")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SMOKE_STEPS", 1)
        patch.setattr(sys, "argv", ["make", *shelf(root)])
        make.main()
    return root


@pytest.mark.slow
def test_every_stage_leaves_its_weights_where_the_published_ones_lie(made):
    assert lacking(made) == []


@pytest.mark.slow
def test_quality_tells_faces_from_what_no_training_has_made(made):
    found = {
        name: row["found"]
        for name, row in json.loads((made / "kept" / "quality.json").read_text())[
            "pictures"
        ].items()
    }
    made_by = {"dev-28", "schnell-4", "dev-28 at guidance 1"}
    adapted = {f"{name} + adapter" for name in made_by}
    assert set(found) == {"renders", "renders through the VAE"} | adapted | {"dev-28", "schnell-4"}
    for name, mean_and_interval in found.items():
        assert mean_and_interval == [float(name.startswith("renders"))] * 3, name


UNET_WEIGHTS = (
    "image-encoder/model.safetensors",
    "readout/looks.onnx",
    "readout/hats.onnx",
    "sd15/unet/diffusion_pytorch_model.safetensors",
    "sdxl/text_encoder_2/model.safetensors",
    "sd15-lcm/pytorch_lora_weights.safetensors",
    "sdxl-lcm/pytorch_lora_weights.safetensors",
    "ip-adapter/style_sdxl.safetensors",
    "ip-adapter/object_sd15.safetensors",
    "ip-adapter/face_id_sdxl.safetensors",
    "instantid/ip-adapter.bin",
    "instantid/ControlNetModel/diffusion_pytorch_model.safetensors",
)
ON_DEV_WEIGHTS = (
    "ip-adapter/face_dev.safetensors",
    "person-lora/pytorch_lora_weights.safetensors",
    "pulid/eva_clip.pt",
    "pulid/pulid_flux.safetensors",
)


@pytest.mark.slow
def test_every_stage_of_the_u_nets_leaves_its_weights(tmp_path, monkeypatch):
    shelf(tmp_path)
    (tmp_path / "models/readout").unlink()
    (tmp_path / "models/readout").mkdir()
    words = ["--smoke", "--only", ",".join(make.UNETS)]
    words += ["--checkpoints", str(tmp_path / "kept"), "--models", str(tmp_path / "models")]
    monkeypatch.setattr(training, "SMOKE_STEPS", 1)
    monkeypatch.setattr(sys, "argv", ["make", *words])
    make.main()
    assert [name for name in UNET_WEIGHTS if not (tmp_path / "models" / name).exists()] == []


@pytest.mark.slow
def test_adapters_learn_on_dev_and_all_are_measured_on_both_models(tmp_path, monkeypatch):
    models = tmp_path / "models"
    models.mkdir()
    for one in MODELS.iterdir():
        if one.name not in {name.split("/")[0] for name in ON_DEV_WEIGHTS}:
            (models / one.name).symlink_to(one)
    (models / "ip-adapter").mkdir()
    for one in (MODELS / "ip-adapter").glob("*_s*.safetensors"):  # those on sd15 and sdxl
        (models / "ip-adapter" / one.name).symlink_to(one)
    words = ["--smoke", "--only", ",".join(["critic", *make.ON_DEV, *make.LAST])]
    words += ["--checkpoints", str(tmp_path / "kept"), "--models", str(models)]
    monkeypatch.setattr(training, "SMOKE_STEPS", 1)
    monkeypatch.setattr(sys, "argv", ["make", *words])
    make.main()
    assert [name for name in ON_DEV_WEIGHTS if not (models / name).exists()] == []
    told = json.loads((tmp_path / "kept" / "adapters_quality.json").read_text())
    backbones = {
        name: (row["base"]["backbone"], row["few_step"]["steps"]) for name, row in told.items()
    }
    sdxl, dev = ("sdxl", 4), ("dev", 2)  # a smoke run of schnell has two steps
    assert backbones == {
        "style": sdxl, "object": ("sd15", 4), "face_id": sdxl, "instantid": sdxl, "face_prompt": dev,
        "pulid": dev, "person": dev,
    }  # fmt: skip


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(tmp_path):
    """As it is typed, with every training step of a smoke run."""
    command = [sys.executable, "-m", "pocket.make", *shelf(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=250)
    assert lacking(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["critic", "--continue", "critic"],
            "'critic' cannot be continued; base, guidance, adapter, ",
        ),
        (["bsae"], "no stage 'bsae'; there are vae, "),
    ],
)
def test_a_mistake_is_named_before_anything_begins(words, line, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make", "--only", *words])
    with pytest.raises(SystemExit) as stopped:
        make.main()
    assert str(stopped.value).startswith(line)
