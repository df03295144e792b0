"""The models of a study: whether each is on this machine, how large it is, or how to get it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from stepscope.probes.adapters import ModelPlace
from stepscope.probes.faces import is_embedding
from stepscope.probes.places import located
from stepscope.probes.study import Study
from stepscope.probes.weights import (
    WeightsError,
    download_words,
    file,
    on_hub,
    parameters,
    weight_files,
)

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
        5.9e9,
        "CC BY-NC 4.0, `hf download ByteDance/InfiniteYou --include 'infu_flux_v1.0/{variant}/*'`",
    ),
    "recognition_arcface_ir_se50.pth": (
        175e6,
        "facexlib's file, https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
        "recognition_arcface_ir_se50.pth",
    ),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (2.1e9, "CreativeML Open RAIL-M, {command}"),
    "stabilityai/stable-diffusion-xl-base-1.0": (6.9e9, "CreativeML Open RAIL++-M, {command}"),
    "stabilityai/sdxl-turbo": (6.9e9, "Stability AI's community licence, {command}"),
    "h94/IP-Adapter": (None, "Apache-2.0, {command}"),
    "h94/IP-Adapter/sdxl_models/ip-adapter_sdxl.safetensors": (0.7e9, "Apache-2.0, {command}"),
    "h94/IP-Adapter/models/ip-adapter_sd15.safetensors": (45e6, "Apache-2.0, {command}"),
    "h94/IP-Adapter/models/ip-adapter-plus_sd15.safetensors": (98e6, "Apache-2.0, {command}"),
    "h94/IP-Adapter/models/image_encoder": (2.5e9, "Apache-2.0, {command}"),
    "h94/IP-Adapter/sdxl_models/image_encoder": (3.7e9, "Apache-2.0, {command}"),
    "InstantX/InstantID": (
        3.3e9,
        # names alone: beside a name `hf download` ignores --include
        "Apache-2.0, `hf download InstantX/InstantID ip-adapter.bin ControlNetModel/config.json "
        "ControlNetModel/diffusion_pytorch_model.safetensors`; its face models are for non-commercial "
        "research",
    ),
    "guozinan/PuLID/pulid_flux_v0.9.1.safetensors": (1.1e9, "Apache-2.0, {command}"),
    "QuanSun/EVA-CLIP/EVA02_CLIP_L_336_psz14_s6B.pt": (0.86e9, "MIT, {command}"),
    "parsing_bisenet.pth": (
        53e6,
        "facexlib's file, https://github.com/xinntao/facexlib/releases/download/v0.2.0/parsing_bisenet.pth",
    ),
    "w600k_r50.onnx": (174e6, "it is in buffalo_l, the detector's pack"),
    "buffalo_l": (
        326e6,
        "for non-commercial research, `insightface-cli model.download buffalo_l`, into "
        "{root}/models/buffalo_l/",
    ),
    "h94/IP-Adapter-FaceID": (None, "for non-commercial research, {command}"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (2.5e9, "MIT, {command}"),
    "glintr100.onnx": (261e6, "it is in antelopev2, the detector's pack"),
    "antelopev2": (
        360e6,
        "for non-commercial research, https://github.com/deepinsight/insightface/releases/download/v0.7/"
        "antelopev2.zip, its .onnx files into {root}/models/antelopev2/",
    ),
}
"""Of the published models, by hub id, place in one, or name: bytes of their weights in half precision, or
of the file where it is kept as it is, None where not known; and the way to them."""


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
    """Every model that the study loads; of faces given as embeddings, no recogniser.

    Raises WeightsError for a file of weights that is damaged.
    """
    width = BYTES[study.backbone.dtype]
    files = study.family.files
    found = [_need("backbone", study.backbone.path, lambda: files(study.backbone).values(), width)]
    if (own := study.backbone.weights) is not None:
        found.append(_need("weights", own, lambda: weights_of(own), width))
    posed = study.control_image is not None and study.control_image_kind == "photo"
    pictures = posed or not all(map(is_embedding, study.faces))
    for key, adapter in study.adapters.items():
        for model in adapter.models():
            if pictures or not model.faces:
                role = model.role if key == "adapter" else f"{key.partition('.')[2]}.{model.role}"
                found.append(_of_adapter(role, model, width))
    return found


def weights_of(place: str) -> list[Path]:
    """The files of a distilled U-Net or LoRA, `backbone.weights`. Raises WeightsError."""
    if located(place).is_dir():
        return list(weight_files(place).values())
    return [file(place, "backbone.weights", download=False)]


def _of_adapter(role: str, model: ModelPlace, width: int) -> Need:
    if model.cast:
        found = _need(role, model.place, lambda: model.files(model.find()), width, **model.words)
        return replace(found, held=model.held)
    try:
        size = float(sum(file.stat().st_size for file in model.files(model.find())))
        return Need(role, model.place, size, held=model.held)
    except WeightsError as error:
        known, cure = _way_to(model.place, str(error), **model.words)
        return Need(role, model.place, known, cure, model.held)


def _need(
    role: str, place: str, files: Callable[[], Iterable[Path]], width: int, **words: str
) -> Need:
    try:
        here = list(files())
    except WeightsError as error:
        known, cure = _way_to(place, str(error), **words)
        return Need(role, place, None if known is None else known * width / 2, cure)
    return Need(role, place, float(sum(map(parameters, here)) * width))


def _way_to(place: str, error: str, **words: str) -> tuple[float | None, str]:
    """Bytes of a model that is not here, where they are known, and what gets it."""
    parts = Path(place).parts
    names = place, "/".join(parts[:2]), parts[-1] if parts else ""
    known = next((DOWNLOADS[name] for name in names if name in DOWNLOADS), None)
    otherwise = download_words(place) if on_hub(place) else error
    if known is None:
        return None, otherwise
    size = known[0] if place in DOWNLOADS or not on_hub(place) else None
    return size, known[1].format(command=download_words(place), **words)
