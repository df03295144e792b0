"""A file that is no adapter, or another adapter's, is answered in one line: with `--dry` and without."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stepscope.pocket.process import MODELS as SHIPPED
from stepscope.probes.adapters import ADAPTERS
from tests.adapter_words import INSTANTID, IP_ADAPTER, MADE, PULID, lora_file
from tests.made_adapters import face_id_file, flux_file
from tests.models import INFINITE_YOU

BIN = IP_ADAPTER / "adapters" / "ip-adapter_sd15.bin"


def cut(path: Path, folder: Path) -> Path:
    """The first half of a file."""
    whole, found = path.read_bytes(), folder / f"cut{path.suffix}"
    found.write_bytes(whole[: len(whole) // 2])
    return found


def written(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def empty(path: Path) -> Path:
    path.mkdir()
    return path


def nothing(path: Path) -> Path:
    save_file({}, path)
    return path


FILES = {
    "a page": lambda folder: written(folder / "page.safetensors", b"<html>not found</html>"),
    "no bytes": lambda folder: written(folder / "none.safetensors", b""),
    "no bytes of torch": lambda folder: written(folder / "none.bin", b""),
    "half a file": lambda folder: cut(lora_file(folder, "sd15", 7), folder),
    "half a file of torch": lambda folder: cut(BIN, folder),
    "no weights": lambda folder: nothing(folder / "nothing.safetensors"),
    "a list": lambda folder: saved(folder / "list.bin", [1, 2, 3]),
    "a text": lambda folder: written(folder / "settings.json", b"{}"),
    "an empty folder": lambda folder: empty(folder / "empty"),
    "a backbone": lambda folder: IP_ADAPTER / "sd15",
    "a LoRA of FLUX": lambda folder: lora_file(folder, "flux", 8),
    "a LoRA of SD 1.5": lambda folder: lora_file(folder, "sd15", 8),
    "a LoRA of SDXL": lambda folder: lora_file(folder, "sdxl", 8),
    "an IP-Adapter of SD 1.5": lambda folder: BIN,
    "an IP-Adapter of SDXL": lambda folder: IP_ADAPTER / "adapters" / "ip-adapter_sdxl.bin",
    "an IP-Adapter of FLUX": flux_file,
    "a FaceID": lambda folder: face_id_file(folder, with_lora=True),
    "an InstantID": lambda folder: INSTANTID / "instantid",
    "an InstantID's branch": lambda folder: INSTANTID / "instantid" / "ip-adapter.bin",
    "a PuLID": lambda folder: PULID / "pulid_flux_tiny.safetensors",
    "an InfuseNet": lambda folder: INFINITE_YOU / "infinite-you",
}
KINDS = {one.KIND: next(n for n, (kind, _) in MADE.items() if kind == one.KIND) for one in ADAPTERS}
OWN = {
    "infusenet": {"an InfuseNet"},
    "ip_adapter": {"an IP-Adapter of SD 1.5"},
    "lora": {"a LoRA of FLUX"},
    "instantid": {"an InstantID"},
    "pulid": {"a PuLID"},
}
"""By kind, the files that its tiny run can be made with."""


FEW = {
    "ip_adapter": ["no bytes", "half a file of torch", "an IP-Adapter of FLUX"],
    "lora": ["a page", "a list"],
}
"""What the ordinary suite tries."""


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        *FEW.items(),
        *(pytest.param(kind, FILES.keys() - OWN[kind], marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_another_file_is_answered_in_one_line(kind, names, typed, tmp_path):
    words = MADE[KINDS[kind]][1](tmp_path, ["0"])
    for name in names:
        folder = tmp_path / name.replace(" ", "_")
        folder.mkdir()
        path = FILES[name](folder)
        for dry in ([], ["--dry"]):
            answer = typed([*words, f"adapter.path={path}", *dry])
            assert answer.status == 2, (name, answer.out)
            assert str(path) in answer.line, (name, answer.line)
            assert "torch.load" not in answer.line, (name, answer.line)


def test_a_lora_of_another_size_is_told_by_its_layer(typed, tmp_path):
    words = MADE["unet_lora"][1](tmp_path, ["0"])
    told = typed([*words, f"adapter.path={lora_file(tmp_path, 'sdxl')}"]).line
    assert "size mismatch for " in told
    assert "torch.Size([2, 32])" in told


def test_a_folder_and_a_file_are_told_apart(typed, tmp_path):
    words = MADE["infusenet"][1](tmp_path, ["0"])
    told = typed([*words, f"adapter.path={BIN}"]).line
    assert told == f"adapter: no folder '{BIN}': it is a file, and a folder is wanted"
    words = MADE["ip_adapter"][1](tmp_path, ["0"])
    told = typed([*words, f"adapter.path={IP_ADAPTER}"]).line
    assert told == f"adapter: no file '{IP_ADAPTER}': it is a folder, and a file is wanted"


def spoilt(folder: Path, part: str, end: str, shape: tuple[int, ...] | None = None) -> Path:
    """The reference's IP-Adapter, of which the first weight with this ending is lost, or of a shape."""
    state = torch.load(BIN, weights_only=True)
    name = next(name for name in state[part] if name.endswith(end))
    if shape is None:
        del state[part][name]
    else:
        state[part][name] = torch.zeros(shape)
    return saved(folder / "spoilt.bin", state)


def half_a_lora(folder: Path) -> Path:
    whole = load_file(lora_file(folder, "sd15"))
    save_file({n: w for n, w in whole.items() if "lora_B" not in n}, folder / "half.safetensors")
    return folder / "half.safetensors"


WRONG = {
    "no values": ("ip_adapter", lambda f: spoilt(f, "ip_adapter", "1.to_v_ip.weight"), "lacks 1.to_v_ip"),
    "other keys": (
        "ip_adapter",
        lambda f: spoilt(f, "ip_adapter", "1.to_k_ip.weight", (5, 24)),
        "1.to_k_ip.weight is (5, 24), and fits the backbone as (8, 24)",
    ),
    "no norm": ("ip_adapter", lambda f: spoilt(f, "image_proj", "norm.weight"), "of its projection"),
    "half a LoRA": ("unet_lora", half_a_lora, "lacks its other matrix"),
    "pocket's": (
        "infusenet",
        lambda f: SHIPPED / "infinite-you",
        "has 64 latent channels, and the backbone 16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_missing_or_of_another_size_is_named(name, typed, tmp_path):
    kind, make, told = WRONG[name]
    answer = typed([*MADE[kind][1](tmp_path, ["0"]), f"adapter.path={make(tmp_path)}"])
    assert answer.status == 2, answer.out
    assert told in answer.line


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        ("{upp: 1.0}", "adapter.scale has no 'upp'; did you mean 'up'"),
        ("{up: {block_9: 1.0}}", "adapter.scale: up has no 'block_9'"),
        ("{up: {block_1: [1.0]}}", "up.block_1 has 3 attentions, and 1 numbers are named"),
    ],
)
def test_a_scale_of_blocks_that_are_not_there_is_refused(scale, told, typed, tmp_path):
    answer = typed([*MADE["ip_adapter"][1](tmp_path, ["0"]), f"adapter.scale={scale}", "--dry"])
    assert answer.status == 2, answer.out
    assert told in answer.line
