"""Calls of each pipeline class: their arguments from its own signature, in several variants.

A variant is a set of words of tests/every_pipeline_variants.py; without words the prompt stands alone.
"""

import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from tests.every_pipeline import pipeline_class

HEIGHT, WIDTH = 16, 24  # pixels of a U-Net's images, half as many latents
PROMPTS = ["a man portrait cinematic", "a woman"]
NEGATIVES = ["sketch", "a suit"]
SEEDS = [3, 11]


def noise(*shape: int, seed: int = 5) -> torch.Tensor:
    """Uniform in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    values = (noise(height, width, 3, seed=seed) * 255).byte()
    return Image.fromarray(values.numpy())


@dataclass(frozen=True)
class Call:
    """A class, and the words of the variant; it makes two images, of two prompts unless `repeated`."""

    name: str
    words: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return "-".join([self.name, *sorted(self.words)])

    @property
    def is_flux(self) -> bool:
        return self.name.startswith("Flux")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels: 8 x 12 latents."""
        return (2 * HEIGHT, 2 * WIDTH) if self.is_flux else (HEIGHT, WIDTH)

    @property
    def texts(self) -> list[int]:
        """Of each image, which of PROMPTS and NEGATIVES it is of."""
        return [0, 0] if "repeated" in self.words else [0, 1]

    @property
    def prompts(self) -> list[str]:
        return [PROMPTS[i] for i in self.texts]

    @property
    def negatives(self) -> list[str]:
        return [NEGATIVES[i] for i in self.texts]

    @property
    def latents(self) -> bool:
        """Whether latents are returned, and no images."""
        return bool(self.words & {"latent", "ended"})


def plain_arguments(call: Call) -> dict[str, Any]:
    """What the call is given before its words change anything, and whether the class asks for it or not."""
    height, width = call.size
    given: dict[str, Any] = {
        "prompt": PROMPTS,
        "height": height,
        "width": width,
        "num_inference_steps": 2,
        "output_type": "np",
        "max_sequence_length": 16,
        "image": noise(2, 3, height, width),
        "control_image": noise(2, 3, height, width, seed=6),
        "mask_image": (noise(2, 1, height, width, seed=7) > 0.5).float(),
        "guidance_scale": 3.5 if call.is_flux else 1.0,
        "pag_scale": 0.0,
        "sag_scale": 0.0,
        "strength": 1.0,
        "generator": [torch.Generator().manual_seed(seed) for seed in SEEDS],
    }
    for key, value in CLASSES.items():
        if re.search(key, call.name):
            own: Any = value() if callable(value) else value
            given |= own
    return given


def asked_of(given: dict[str, Any], name: str) -> dict[str, Any]:
    """Those of the arguments that the class's `__call__` has."""
    known = inspect.signature(pipeline_class(name).__call__).parameters
    return {key: value for key, value in given.items() if key in known}


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
        "mask_image": (noise(2, 1, HEIGHT // 2, WIDTH // 2) > 0.5).float(),
        "image_latents": torch.randn(2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(1)),
        "inpaint_strength": 1.0,
    },
    r"GLIGEN": {"gligen_phrases": ["a man"], "gligen_boxes": [[0.1, 0.2, 0.6, 0.9]]},
    r"GLIGENPipeline": {"gligen_scheduled_sampling_beta": 0.5},
}
"""Pattern of class names -> arguments that only those ask for, or ask for in other shapes."""

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
    r"GLIGENTextImage": "loop of its own",
}
"""Classes of which no call is made here, and the cause for which `record` refuses each on entry."""


def has_call(name: str) -> bool:
    return not any(re.search(pattern, name) for pattern in WITHOUT_CALL)
