"""The models of a study: whether each is on this machine, how large it is, or how to get it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from stepscope.probes.adapters import ModelPlace
from stepscope.probes.faces import is_embedding
from stepscope.probes.study import Study
from stepscope.probes.weights import WeightsError, download_words, on_hub

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
    files = study.family.files
    found = [_need("backbone", study.backbone.path, lambda: files(study.backbone).values(), width)]
    posed = study.control_image is not None and study.control_image_kind == "photo"
    pictures = posed or not all(map(is_embedding, study.faces))
    for key, adapter in study.adapters.items():
        for model in adapter.models():
            if pictures or not model.faces:
                role = model.role if key == "adapter" else f"{key.partition('.')[2]}.{model.role}"
                found.append(_of_adapter(role, model, width))
    return found


def _of_adapter(role: str, model: ModelPlace, width: int) -> Need:
    if model.cast:
        found = _need(role, model.place, lambda: model.files(model.find()), width, **model.words)
        return replace(found, held=model.held)
    name = Path(model.place).name
    try:
        size = float(sum(file.stat().st_size for file in model.files(model.find())))
        return Need(role, model.place, size, held=model.held)
    except WeightsError as error:
        known = DOWNLOADS.get(name, (None, ""))[0]
        return Need(role, model.place, known, _cure(name, str(error), **model.words), model.held)


def _need(
    role: str, place: str, files: Callable[[], Iterable[Path]], width: int, **words: str
) -> Need:
    try:
        return Need(role, place, float(sum(parameters(file) for file in files()) * width))
    except WeightsError as error:
        known, cure = DOWNLOADS.get(place, (None, ""))[0], str(error)
        if on_hub(place):
            cure = _cure(place, download_words(place), **words)
        return Need(role, place, None if known is None else known * width / 2, cure)


def _cure(name: str, otherwise: str, **words: str) -> str:
    return DOWNLOADS[name][1].format(**words) if name in DOWNLOADS else otherwise


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
