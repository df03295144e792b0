"""Files of models that are damaged, or of another kind, are answered in one line that names them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import INFINITE_YOU
from tests.shell import infused, listed, tiny
from tests.test_faces import ENCODER, PACK, PORTRAITS


def cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def empty(file: Path) -> None:
    file.write_text("{")


def other(file: Path) -> None:
    torch.save({"a": torch.ones(1)}, file)


def lose_one(file: Path) -> None:
    state = load_file(file)
    state.popitem()
    save_file(state, file)


BACKBONE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "transformer": ("transformer/diffusion_pytorch_model.safetensors", cut),
    "a tensor": ("transformer/diffusion_pytorch_model.safetensors", lose_one),
    "a tensor of the VAE": ("vae/diffusion_pytorch_model.safetensors", lose_one),
    "text encoder": ("text_encoder/model.safetensors", cut),
    "no weights": ("vae/diffusion_pytorch_model.safetensors", Path.unlink),
    "tokenizer": ("tokenizer/tokenizer.json", empty),
    "no tokenizer": ("tokenizer", shutil.rmtree),
    "configuration": ("transformer/config.json", empty),
    "no schedule": ("scheduler", shutil.rmtree),
}


@pytest.mark.parametrize("name", BACKBONE)
def test_damaged_backbone(name, typed, tmp_path):
    inside, damage = BACKBONE[name]
    model = Path(shutil.copytree(INFINITE_YOU / "flux-dev", tmp_path / "model"))
    damage(model / inside)
    answer = typed(tiny(backbone__path=model))
    assert answer.status == 2
    assert answer.line.startswith("backbone flux_dev")
    assert f"'{model}'" in answer.line
    assert ("cannot be read" in answer.line) != (f"no {inside}/ in" in answer.line)


def test_adapter_that_lacks_a_tensor(typed, tmp_path, face):
    adapter = Path(shutil.copytree(INFINITE_YOU / "infinite-you", tmp_path / "adapter"))
    lose_one(adapter / "InfuseNetModel" / "diffusion_pytorch_model.safetensors")
    answer = typed(infused(faces=listed(face), adapter__path=adapter))
    assert answer.status == 2
    assert answer.line.startswith(f"adapter '{adapter}' cannot be read: InfuseNet lacks ")


@pytest.mark.parametrize(
    ("damage", "told"), [(cut, "cannot be read: "), (other, "lacks image_proj")]
)
def test_damaged_projection(damage, told, typed, tmp_path, face):
    adapter = Path(shutil.copytree(INFINITE_YOU / "infinite-you", tmp_path / "adapter"))
    damage(adapter / "image_proj_model.bin")
    answer = typed(infused(faces=listed(face), adapter__path=adapter))
    assert answer.status == 2
    assert answer.line.startswith(f"adapter '{adapter}' {told}")


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("e.onnx", b"x", "adapter.encoder 'e.onnx' cannot be read: "),
        (
            "e.onnx",
            (PACK / "det.onnx").read_bytes(),
            "adapter.encoder='e.onnx' is not a recogniser",
        ),
        ("e.pth", b"x", "adapter.encoder='e.pth' is not an IR-SE50 state dict"),
    ],
)
def test_damaged_encoder(name, data, line, typed, tmp_path):
    (tmp_path / name).write_bytes(data)
    faces = listed(PORTRAITS / "00_0.png")
    answer = typed(infused(faces=faces, adapter__detector=PACK, adapter__encoder=name))
    assert answer.status == 2
    assert answer.line.startswith(line)


def test_damaged_detector(typed, tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "det.onnx").write_bytes(b"x")
    faces = listed(PORTRAITS / "00_0.png")
    answer = typed(infused(faces=faces, adapter__detector="pack", adapter__encoder=ENCODER))
    assert answer.status == 2
    assert answer.line.startswith("adapter.detector: insightface pack 'pack' cannot be read: ")
