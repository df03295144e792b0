"""Calls of each pipeline class: their arguments from its own signature, in several variants.

A variant is a set of words: `guided`, `perturbed`, `image_prompt`, `latent`, `embeds`, `cutoff`,
`edited`, `truncated`, `several`, `guess`; without words the prompt stands alone.
"""

import copy
import inspect
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers import MultiAdapter
from diffusers.models import ImageProjection
from PIL import Image

from tests.every_pipeline import build, pipeline_class
from tests.every_pipeline_parts import part
from tests.models import randomised

HEIGHT, WIDTH = 16, 24  # pixels of a U-Net's images, half as many latents
PROMPTS = ["a man portrait cinematic", "a woman"]
NEGATIVES = ["sketch", "a suit"]
SEEDS = (3, 11)


def noise(*shape: int, seed: int = 5) -> torch.Tensor:
    """Uniform in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    values = (noise(height, width, 3, seed=seed) * 255).byte()
    return Image.fromarray(values.numpy())


@dataclass(frozen=True)
class Call:
    """A class, and the words of the variant; it makes two images of two prompts."""

    name: str
    words: frozenset[str] = frozenset()
    steps: int = 2

    def __str__(self) -> str:
        return "-".join([self.name, *sorted(self.words)])

    @property
    def is_flux(self) -> bool:
        return self.name.startswith("Flux")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels: 8 x 12 latents."""
        return (2 * HEIGHT, 2 * WIDTH) if self.is_flux else (HEIGHT, WIDTH)

    def pipe(self) -> Any:
        """The pipeline, with modules of its own where the call changes them."""
        given: dict[str, Any] = {}
        if "several" in self.words:
            given = _several(self.name)
        pipe = build(self.name, **given)
        if self.words & {"image_prompt", "perturbed"}:
            name = "transformer" if self.is_flux else "unet"
            model = copy.deepcopy(getattr(pipe, name))
            pipe.register_modules(**{name: model})
            if "image_prompt" in self.words:
                load_image_prompt(model)
        return pipe

    def arguments(self, pipe: Any) -> dict[str, Any]:
        """Everything that `pipe(…)` is given, with generators that have drawn nothing yet."""
        asked = inspect.signature(type(pipe).__call__).parameters
        height, width = self.size
        image = noise(2, 3, height, width)
        given: dict[str, Any] = {
            "prompt": PROMPTS,
            "height": height,
            "width": width,
            "num_inference_steps": self.steps,
            "output_type": "latent" if "latent" in self.words else "np",
            "max_sequence_length": 16,
            "image": image,
            "control_image": noise(2, 3, height, width, seed=6),
            "mask_image": (noise(2, 1, height, width, seed=7) > 0.5).float(),
            "guidance_scale": 3.5 if self.is_flux else 1.0,
            "pag_scale": 3.0 if "perturbed" in self.words else 0.0,
            "sag_scale": 0.75 if "perturbed" in self.words else 0.0,
            "strength": 1.0,
        }
        if "truncated" in self.words:
            given |= {"strength": 0.7, "num_inference_steps": 3}
        if "guided" in self.words:
            given |= {"negative_prompt": NEGATIVES, "true_cfg_scale": 3.0}
            given["guidance_scale"] = 3.5 if self.is_flux else 5.0
        given |= extra(self, pipe)
        given = {name: value for name, value in given.items() if name in asked}
        given["generator"] = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        return given


def _several(name: str) -> dict[str, Any]:
    """Two ControlNets, or two T2I-Adapters, in the place of one."""
    asked = inspect.signature(pipeline_class(name).__init__).parameters
    word = "controlnet" if "controlnet" in asked else "adapter"
    annotation = str(asked[word].annotation)
    two = [part(name, annotation), copy.deepcopy(part(name, annotation))]
    return {word: MultiAdapter(two) if word == "adapter" else two}


def extra(call: Call, pipe: Any) -> dict[str, Any]:
    """What single classes and single variants ask for besides."""
    words, asked = call.words, inspect.signature(type(pipe).__call__).parameters
    found: dict[str, Any] = {"guess_mode": "guess" in words}
    for key, value in CLASSES.items():
        if re.search(key, call.name):
            found |= value() if callable(value) else value
    if "several" in words:
        name = "control_image" if "control_image" in asked else "image"
        one = found.get(name, noise(2, 3, *call.size, seed=6))
        found[name] = [*one, *one] if isinstance(one, list) else [one, one.flip(0)]
        found["controlnet_conditioning_scale"] = [0.5, 1.0]
        found["adapter_conditioning_scale"] = [0.5, 1.0]
        found["control_mode"] = [0, 1] if "Union" in call.name else [None, None]
    if "image_prompt" in words:
        found |= image_prompt(call)
    if "embeds" in words:
        found |= embedded(call)
    if "cutoff" in words:
        names = [n for n in CUT if n in pipe._callback_tensor_inputs]
        found |= {"callback_on_step_end": cut, "callback_on_step_end_tensor_inputs": names}
    if "edited" in words:
        found |= {"callback_on_step_end": shrink}
    return found


def image_prompt(call: Call) -> dict[str, Any]:
    """An IP-Adapter's picture, as an embedding where the class takes that."""
    # the two classes pass embeddings on only where a picture is given too
    if re.search("LDM3D|InstructPix2Pix", call.name):
        return {"ip_adapter_image": picture(3)}
    embeds = noise(2, 1, 32, seed=9)
    if call.is_flux:
        return {
            "ip_adapter_image_embeds": [embeds],
            "negative_ip_adapter_image_embeds": [embeds.flip(0)],
        }
    rows = [embeds.flip(0), embeds] if "guided" in call.words else [embeds]
    return {"ip_adapter_image_embeds": [torch.cat(rows)]}


def variants(name: str) -> list[Call]:
    """Every call that the class's signature allows, the guided one first if there is one."""
    asked = inspect.signature(pipeline_class(name).__call__).parameters
    made_of = inspect.signature(pipeline_class(name).__init__).parameters
    flux, pag = name.startswith("Flux"), "pag_scale" in asked
    can_guide = "true_cfg_scale" in asked if flux else "LatentConsistency" not in name
    guided = {"guided"} if can_guide else set()
    found = [guided, set()] if can_guide else [set()]
    if pag or "sag_scale" in asked:
        found += [{"guided", "perturbed"}, {"perturbed"}]
    if "LDM3D" not in name:
        found.append(guided | {"latent"})
    if "prompt_embeds" in asked and name not in WORDS_ALONE:
        found.append(guided | {"embeds"})
    if "ip_adapter_image" in asked and not name.startswith("Alt"):
        found += [guided | {"image_prompt"}] + ([{"image_prompt"}] if can_guide else [])
    if "callback_on_step_end" in asked:
        found.append(guided | {"edited"})
        control = "controlnet" in made_of and not re.search(CONTROL_IS_CUT, name)
        if can_guide and not (flux or pag or control):
            found.append(guided | {"cutoff"})
    if "strength" in asked:
        found.append(guided | {"truncated"})
    if "controlnet" in made_of or "adapter" in made_of:
        found.append(guided | {"several"})
    if "guess_mode" in asked and can_guide and not pag and "Union" not in name:
        found.append(guided | {"guess"})
    return [Call(name, frozenset(words), 3 if "cutoff" in words else 2) for words in found]


WITHOUT_CALL = {
    r"^(AnimateDiff|PIA)": "UNetMotionModel",
    r"ControlNetXS": "UNetControlNetXSModel",
    r"^(Kandinsky|IF)|LatentUpscale": "no transformer blocks",
    r"^(Versatile|UnCLIP)": "neither a transformer nor a unet",
    r"^(Audio|Music|Marigold|LDMTextToImage|TextToVideoZero|BlipDiffusion)": "loop of its own",
    r"^VisualCloze": "a whole grid as one sequence",
    r"Panorama": "overlapping views",
    r"Safe$|^Semantic": "(safety|semantic) prompt",
    r"AttendAndExcite|Pix2PixZero": "gradient",
    r"Paradigms": "several steps in one batch",
    r"^(CycleDiffusion|LEditsPP)": "source and a target",
    r"GLIGENTextImage": "passes",
}
"""Classes of which no call is made here, and the cause for which `record` refuses each on entry."""


def has_call(name: str) -> bool:
    return not any(re.search(pattern, name) for pattern in WITHOUT_CALL)


WORDS_ALONE = (
    "KolorsImg2ImgPipeline",
    "StableUnCLIPPipeline",
    "StableDiffusionInstructPix2PixPipeline",
)
"""Classes that ask for the prompt in words, whatever their signature says, or encode it unseen."""

CONTROL_IS_CUT = r"ControlNet(Img2Img)?Pipeline$"
"""ControlNet pipelines whose callback may cut the control image to the rows without guidance."""

CLASSES: dict[str, Any] = {
    r"Union": lambda: {"control_image": [noise(2, 3, HEIGHT, WIDTH, seed=6)], "control_mode": [0]},
    r"FluxKontext": {"max_area": 32 * 48, "_auto_resize": False},
    r"FluxKontextPipeline": lambda: {"image": noise(2, 3, 48, 32)},
    r"FluxKontextInpaint": lambda: {"image_reference": noise(2, 3, 48, 32, seed=8)},
    r"InstructPix2Pix": {"image_guidance_scale": 1.5},
    r"StableDiffusionUpscale": lambda: {"image": noise(2, 3, 8, 12), "noise_level": 20},
    r"Depth2Img": lambda: {"depth_map": noise(2, HEIGHT, WIDTH)},
    r"ImageVariation|UnCLIPImg2Img": lambda: {"image": [picture(1), picture(2)]},
    r"StableUnCLIPPipeline": {"prior_num_inference_steps": 2, "prior_guidance_scale": 1.0},
    r"PaintByExample": lambda: {
        "example_image": [picture(1), picture(2)],
        "image": noise(2, 3, HEIGHT, WIDTH) * 2 - 1,
    },
    r"InpaintPipelineLegacy": lambda: {"image": noise(2, 3, HEIGHT, WIDTH) * 2 - 1},
    r"DiffEdit": lambda: {
        "num_inference_steps": 2,
        "mask_image": (noise(2, 1, HEIGHT // 2, WIDTH // 2) > 0.5).float(),
        "image_latents": torch.randn(2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(1)),
        "inpaint_strength": 1.0,
    },
    r"GLIGEN": {"gligen_phrases": ["a man"], "gligen_boxes": [[0.1, 0.2, 0.6, 0.9]]},
    r"GLIGENPipeline": {"gligen_scheduled_sampling_beta": 0.5},
}
"""Pattern of class names -> arguments that only those ask for."""

CUT = (
    "prompt_embeds",
    "add_text_embeds",
    "add_time_ids",
    "image",
    "control_image",
    "mask",
    "masked_image_latents",
    "depth_mask",
    "image_latents",
)


def cut(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Guidance ends after the first step, as with diffusers' SDCFGCutoffCallback, for any batch."""
    if step:
        return {}
    pipe._guidance_scale = 0.0
    return {name: _last(value) for name, value in values.items()}


def _last(value: Any) -> Any:
    """The positive rows; of InstructPix2Pix's three the first."""
    if isinstance(value, list):
        return [_last(v) for v in value]
    return value[:2] if len(value) == 6 else value[-2:]


def shrink(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    return {"latents": values["latents"] * 0.9}


@cache
def encoded(name: str) -> tuple[torch.Tensor, ...]:
    """What the class's own `encode_prompt` makes of the prompts, seen in a plain call."""
    call, seen = Call(name), []
    pipe = call.pipe()
    encode = pipe.encode_prompt

    def keep(*args: Any, **kwargs: Any) -> Any:
        seen.append(encode(*args, **kwargs))
        return seen[-1]

    pipe.encode_prompt = keep
    pipe(**call.arguments(pipe))
    return seen[0]


def embedded(call: Call) -> dict[str, Any]:
    """The prompt as embeddings; a negative prompt stays in words."""
    made = encoded(call.name)
    found: dict[str, Any] = {"prompt": None, "prompt_embeds": made[0]}
    if call.is_flux:
        found["pooled_prompt_embeds"] = made[1]
    elif len(made) == 4:
        found["pooled_prompt_embeds"] = made[2]
    return found


def load_image_prompt(model: Any, scale: float = 0.7) -> None:
    """An IP-Adapter of random weights for a U-Net or a FLUX transformer, read as its state dict is."""
    flux = not hasattr(model.config, "cross_attention_dim")
    width = model.config.joint_attention_dim if flux else model.config.cross_attention_dim
    names = [n for n in model.attn_processors if re.search("^transformer_blocks|attn2", n)]
    inside: dict[str, torch.Tensor] = {}
    for index, name in enumerate(names):
        attention = model.get_submodule(name.removesuffix(".processor"))
        key = index if flux else 2 * index + 1
        for seed, which in enumerate(("to_k_ip", "to_v_ip")):
            weight = noise(attention.to_q.out_features, width, seed=2 * index + seed) - 0.5
            inside[f"{key}.{which}.weight"] = weight
            if flux:
                inside[f"{key}.{which}.bias"] = weight[:, 0]
    project = randomised(ImageProjection(32, cross_attention_dim=width, num_image_text_embeds=4))
    projected = {
        key.replace("image_embeds", "proj"): value for key, value in project.state_dict().items()
    }
    state = {"image_proj": projected, "ip_adapter": inside}
    model._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    for processor in model.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [scale]
