"""The models of a study: whether each is on this machine, how large it is, or how to get it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stepscope.probes.backbones import backbone_folder
from stepscope.probes.infusenet import PROJECTION, adapter_folder
from stepscope.probes.places import located
from stepscope.probes.study import Adapter, Study
from stepscope.probes.weights import WeightsError, local_folder, pack_folder, weight_files

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
HUB = "https://huggingface.co/"
DOWNLOADS = {
    "black-forest-labs/FLUX.1-dev": (
        33.7e9,
        f"accept the FLUX.1 [dev] non-commercial licence on {HUB}black-forest-labs/FLUX.1-dev, "
        "`hf auth login`, then `hf download black-forest-labs/FLUX.1-dev --exclude flux1-dev.safetensors "
        "ae.safetensors`",
    ),
    "black-forest-labs/FLUX.1-schnell": (
        33.7e9,
        "Apache 2.0, `hf download black-forest-labs/FLUX.1-schnell --exclude flux1-schnell.safetensors "
        f"ae.safetensors` (where its page asks for an account, {HUB}black-forest-labs/FLUX.1-schnell: "
        "`hf auth login`)",
    ),
    "ByteDance/InfiniteYou": (
        None,
        "CC BY-NC 4.0, `hf download ByteDance/InfiniteYou --include 'infu_flux_v1.0/{variant}/*'`",
    ),
    "recognition_arcface_ir_se50.pth": (
        175e6,
        "facexlib's file, https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
        "recognition_arcface_ir_se50.pth",
    ),
    "antelopev2": (
        360e6,
        "for non-commercial research, https://github.com/deepinsight/insightface/releases/download/v0.7/"
        "antelopev2.zip, its .onnx files into {root}/models/antelopev2/",
    ),
}
"""Of the published models, by hub id or name: bytes to download, None where not known, and the way."""


@dataclass(frozen=True)
class Need:
    """A model that a study loads.

    size: bytes of its weights in the study's dtype, None where not known. cure: what gets it; empty where
    it is here. held: whether it stays in the device's memory while samples are made.
    """

    role: str
    place: str
    size: float | None
    cure: str = ""
    held: bool = True


def needs(study: Study) -> list[Need]:
    """Every model that the study loads; of faces given as embeddings, no recogniser."""
    width = BYTES[study.backbone.dtype]
    backbone = study.backbone.path
    found = [
        _need(
            "backbone",
            backbone,
            lambda: _components(backbone_folder(study.backbone, download=False)),
            width,
        )
    ]
    a = study.adapter
    if a is None:
        return found
    found.append(_need("adapter", a.path, lambda: _of_adapter(a), width, variant=a.variant))
    if all(face.lower().endswith(".npy") for face in study.faces) and study.control_image is None:
        return found
    encoder = located(a.encoder)
    pack = pack_folder(a.detector, a.detector_root)
    for role, place, file in (("encoder", a.encoder, encoder), ("detector", a.detector, pack)):
        here = file is not None and file.exists()
        size = sum(f.stat().st_size for f in weight_files(file).values()) if here and file else None
        name = Path(place).name
        cure = (
            ""
            if here
            else _cure(
                name,
                f"no {'file' if role == 'encoder' else 'pack'} {place!r}",
                root=a.detector_root,
            )
        )
        known = DOWNLOADS.get(name, (None, ""))[0]
        found.append(Need(role, place, size if here else known, cure, held=role == "encoder"))
    return found


def _need(
    role: str, place: str, files: Callable[[], Iterable[Path]], width: int, variant: str = ""
) -> Need:
    try:
        return Need(role, place, float(sum(parameters(file) for file in files()) * width))
    except WeightsError as error:
        known, cure = DOWNLOADS.get(place, (None, ""))[0], str(error)
        if _is_hub_id(place, role):
            cure = _cure(place, f"`hf download {place}`", variant=variant)
        return Need(role, place, None if known is None else known * width / 2, cure)


def _is_hub_id(place: str, role: str) -> bool:
    try:
        return local_folder(place, role) is None
    except WeightsError:
        return False


def _cure(name: str, otherwise: str, **words: str) -> str:
    return DOWNLOADS[name][1].format(**words) if name in DOWNLOADS else otherwise


def _components(folder: Path) -> list[Path]:
    """What a pipeline loads: the files of its parts, and not those beside them."""
    return [file for name, file in weight_files(folder).items() if "/" in name]


def _of_adapter(adapter: Adapter) -> list[Path]:
    folder = adapter_folder(adapter, download=False)
    network = list(weight_files(folder / "InfuseNetModel").values())
    return [*network, *([folder / PROJECTION] if (folder / PROJECTION).exists() else [])]


def parameters(file: Path) -> int:
    """How many numbers a file of weights holds: by its header, or by four bytes for each."""
    if file.suffix != ".safetensors":
        return file.stat().st_size // 4
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    count = 0
    for name, about in header.items():
        if name != "__metadata__":
            size = 1
            for side in about["shape"]:
                size *= side
            count += size
    return count
