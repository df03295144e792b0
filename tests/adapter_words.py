"""For each kind of adapter the words of a tiny run with it: what the laws of adapters are tried on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from stepscope.probes.weights import meta
from tests.made_adapters import face_id_file, face_id_plus_file, flux_file, plus_face
from tests.models import INFINITE_YOU, REFERENCE
from tests.shell import Words, infused, listed, tiny
from tests.test_adapters import lora

IP_ADAPTER, INSTANTID = REFERENCE / "ip-adapter", REFERENCE / "instantid"
PULID = REFERENCE / "pulid-flux"
PACK = Path("pocket/models/insightface/models/pocket").resolve()
SIZE = {"height": 64, "width": 64}


def unet_words(base: str, folder: Path = IP_ADAPTER, **changed: Any) -> Words:
    """A small run of the reference's Stable Diffusion; words that are changed to None are left out."""
    words = {
        "backbone": base,
        "backbone.path": folder / base,
        "backbone.dtype": "float32",
        "prompts": listed("a man portrait cinematic"),
        "seeds": "[0]",
        "steps": 3,
        **SIZE,
        "device": "cpu",
    } | {name.replace("__", "."): value for name, value in changed.items()}
    return [f"{name}={value}" for name, value in words.items() if value is not None]


def picture(folder: Path, seed: int, name: str = "picture", hidden: bool = False) -> Path:
    """Embeddings of a picture that the reference's adapters read."""
    shape = (1, 9, 28) if hidden else (1, 36)
    draw = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    path = folder / f"{name}_{seed}.npz"
    np.savez(path, image_embeds=draw[0], negative_image_embeds=draw[1] if hidden else 0 * draw[0])
    return path


def embedding(folder: Path, seed: int) -> Path:
    path = folder / f"face_{seed}.npy"
    np.save(path, np.random.default_rng(seed).normal(size=512).astype(np.float32))
    return path


LAYERS = {
    "flux": ["transformer_blocks.1.attn.to_q", "single_transformer_blocks.1.attn.to_v"],
    "sdxl": [
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    ],
    "sd15": [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    ],
}


def lora_file(folder: Path, name: str, seed: int = 0) -> Path:
    """A LoRA of random weights for the reference's FLUX, or for its `sd15` or `sdxl`."""
    flux = name == "flux"
    part, kind = ("transformer", FluxTransformer2DModel) if flux else ("unet", UNet2DConditionModel)
    root = INFINITE_YOU / "flux-dev" if flux else IP_ADAPTER / name
    weights = lora(meta(kind, root / part), part, LAYERS[name], seed)
    path = folder / f"{name}_{seed}.safetensors"
    save_file({key: 0.2 * value.contiguous() for key, value in weights.items()}, path)
    return path


def ip_adapter(folder: Path, seeds: Words) -> Words:
    return unet_words(
        "sd15",
        adapter="ip_adapter",
        adapter__path=IP_ADAPTER / "adapters" / "ip-adapter_sd15.bin",
        adapter__scale=0.7,
        faces=listed(*(picture(folder, int(seed)) for seed in seeds)),
        record__velocity="true",
    )


def ip_adapter_plus(folder: Path, seeds: Words) -> Words:
    return unet_words(
        "sdxl",
        adapter="ip_adapter",
        adapter__path=IP_ADAPTER / "adapters" / "ip-adapter-plus_sdxl.bin",
        faces=listed(*(picture(folder, int(seed), hidden=True) for seed in seeds)),
    )


def instantid_words(**changed: Any) -> Words:
    own = {
        "adapter": "instantid",
        "adapter__path": INSTANTID / "instantid",
        "control_image_kind": "keypoints" if "control_image" in changed else "photo",
    }
    return unet_words("sdxl", INSTANTID, **(own | changed))


def instantid(folder: Path, seeds: Words) -> Words:
    drawing = folder / "keypoints.png"
    Image.new("RGB", (64, 64), (90, 0, 200)).save(drawing)
    faces = listed(*(embedding(folder, int(seed)) for seed in seeds))
    return instantid_words(faces=faces, control_image=drawing)


def pulid_folder(folder: Path, backbone: str) -> Path:
    """The reference's backbone of PuLID, whose other parts are those of InfiniteYou's."""
    root = folder / f"pulid-{backbone}"
    if not root.exists():
        shutil.copytree(INFINITE_YOU / f"flux-{backbone}", root)
        shutil.rmtree(root / "transformer")
        shutil.copytree(PULID / f"flux-{backbone}" / "transformer", root / "transformer")
    return root


def pulid_words(folder: Path, backbone: str = "dev", **changed: Any) -> Words:
    own = {"adapter": "pulid", "adapter__path": PULID / "pulid_flux_tiny.safetensors"}
    path = pulid_folder(folder, backbone)
    return tiny(backbone, backbone__path=path, max_sequence_length=16, **(own | changed))


def pulid_face(folder: Path, seed: int) -> Path:
    """What the reference's PuLID reads of a face, at random."""
    draw, path = np.random.default_rng(seed), folder / f"pulid_{seed}.npz"
    condition, hidden = draw.normal(size=(1, 1280)), draw.normal(size=(1, 5, 17, 20))
    np.savez(path, id_cond=condition.astype("f"), id_vit_hidden=hidden.astype("f"))
    return path


def pulid(folder: Path, seeds: Words) -> Words:
    faces = listed(*(pulid_face(folder, int(seed)) for seed in seeds))
    return pulid_words(folder, faces=faces, steps=3)


def infusenet(folder: Path, seeds: Words) -> Words:
    return infused(faces=listed(*(embedding(folder, int(seed)) for seed in seeds)), steps=3)


def flux_lora(folder: Path, seeds: Words) -> Words:
    return tiny(adapter="lora", adapter__path=lora_file(folder, "flux"), steps=3)


def unet_lora(folder: Path, seeds: Words) -> Words:
    return unet_words("sd15", adapter="lora", adapter__path=lora_file(folder, "sd15"))


def infusenet_and_lora(folder: Path, seeds: Words) -> Words:
    return beside(infusenet(folder, seeds), "lora", lora__path=lora_file(folder, "flux"))


def beside(words: Words, *names: str, **more: Any) -> Words:
    """A run's words with further adapters beside the one that they name. more: of `beside`."""
    (first,) = (word.partition("=")[2] for word in words if word.startswith("adapter="))
    kept = [word for word in words if not word.startswith("adapter=")]
    own = [f"beside.{name.replace('__', '.')}={value}" for name, value in more.items()]
    return [*kept, f"adapter=[{','.join((first, *names))}]", *own]


def face_id(folder: Path, seeds: Words) -> Words:
    return unet_words(
        "sd15",
        adapter="ip_adapter",
        adapter__path=face_id_file(folder, with_lora=True),
        adapter__face_id="true",
        faces=listed(*(embedding(folder, int(seed)) for seed in seeds)),
    )


def face_id_plus(folder: Path, seeds: Words) -> Words:
    return unet_words(
        "sd15",
        adapter="ip_adapter",
        adapter__path=face_id_plus_file(folder),
        adapter__face_id="true",
        adapter__shortcut="false",
        faces=listed(*(plus_face(folder, int(seed)) for seed in seeds)),
    )


def flux_ip_adapter(folder: Path, seeds: Words) -> Words:
    faces = listed(*(picture(folder, int(seed)) for seed in seeds))
    return tiny(adapter="ip_adapter", adapter__path=flux_file(folder), faces=faces, steps=3)


def ip_adapter_and_lora(folder: Path, seeds: Words) -> Words:
    return beside(ip_adapter(folder, seeds), "lora", lora__path=lora_file(folder, "sd15"))


def lora_and_ip_adapter(folder: Path, seeds: Words) -> Words:
    path = IP_ADAPTER / "adapters" / "ip-adapter_sd15.bin"
    faces = f"faces={listed(*(picture(folder, int(seed)) for seed in seeds))}"
    return [*beside(unet_lora(folder, seeds), "ip_adapter", ip_adapter__path=path), faces]


def instantid_and_lora(folder: Path, seeds: Words) -> Words:
    return beside(instantid(folder, seeds), "lora", lora__path=lora_file(folder, "sdxl"))


def pulid_and_lora(folder: Path, seeds: Words) -> Words:
    return beside(pulid(folder, seeds), "lora", lora__path=lora_file(folder, "flux"))


Make = Callable[[Path, Words], Words]
MADE: dict[str, tuple[str, Make]] = {
    "infusenet": ("infusenet", infusenet),
    "ip_adapter": ("ip_adapter", ip_adapter),
    "ip_adapter_plus": ("ip_adapter", ip_adapter_plus),
    "instantid": ("instantid", instantid),
    "pulid": ("pulid", pulid),
    "flux_lora": ("lora", flux_lora),
    "unet_lora": ("lora", unet_lora),
    "infusenet_and_lora": ("infusenet", infusenet_and_lora),
    "face_id": ("ip_adapter", face_id),
    "face_id_plus": ("ip_adapter", face_id_plus),
    "flux_ip_adapter": ("ip_adapter", flux_ip_adapter),
    "ip_adapter_and_lora": ("ip_adapter", ip_adapter_and_lora),
    "lora_and_ip_adapter": ("lora", lora_and_ip_adapter),
    "instantid_and_lora": ("instantid", instantid_and_lora),
    "pulid_and_lora": ("pulid", pulid_and_lora),
}
"""By name: the kind of adapter that is studied, and the words of a run on files for some seeds."""
PARTS = {"instantid": ["adapter.", "adapter.controlnet_"]}
"""By kind, the beginnings of the keys of its parts that have a scale and a window each."""


def off(name: str) -> Words:
    """What switches an adapter off."""
    return [f"{part}scale=0.0" for part in PARTS.get(MADE[name][0], ["adapter."])]


def only_in(name: str, step: int) -> Words:
    """What opens its windows in one step alone."""
    parts = PARTS.get(MADE[name][0], ["adapter."])
    both = ([f"{p}window=[{step},{step + 1}]", f"{p}window_unit=step"] for p in parts)
    return [word for words in both for word in words]
