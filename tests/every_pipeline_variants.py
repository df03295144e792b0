"""The words that variants of a call are made of: what each changes in a pipeline and its arguments."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tests import every_pipeline_words as change
from tests.every_pipeline import pipeline_class
from tests.every_pipeline_calls import Call, noise
from tests.every_pipeline_image_prompt import image_prompt, load_image_prompt
from tests.every_pipeline_parts import image_processor
from tests.every_pipeline_words import Arguments, Asked


def _nothing(*args: Any) -> Arguments:
    return {}


@dataclass(frozen=True)
class Word:
    """fits: whether a class has it. alone: also without guidance. components: in the place of others.

    change: what is done to the pipeline. arguments: from the call, the arguments so far, and those
    that the class asks for, to further ones.
    """

    fits: Callable[[Asked], bool]
    arguments: Callable[[Call, Arguments, Mapping[str, Any]], Arguments] = _nothing
    components: Callable[[str], dict[str, Any]] = _nothing
    change: Callable[[Any], Any] = _nothing
    alone: bool = False


WORDS: dict[str, Word] = {
    "guided": Word(lambda asked: asked.can_guide, change.guided),
    "perturbed": Word(
        lambda asked: "pag_scale" in asked.call or "sag_scale" in asked.call,
        lambda *args: {"pag_scale": 3.0, "sag_scale": 0.75},
        change=change.own_denoiser,
        alone=True,
    ),
    "image_prompt": Word(
        lambda asked: "ip_adapter_image" in asked.call and not asked.name.startswith("Alt"),
        lambda call, given, asked: image_prompt(call),
        change=lambda pipe: load_image_prompt(change.own_denoiser(pipe)),
        alone=True,
    ),
    "latent": Word(
        lambda asked: "LDM3D" not in asked.name, lambda *args: {"output_type": "latent"}
    ),
    "embeds": Word(
        lambda asked: (
            "prompt_embeds" in asked.call and not re.search(change.WORDS_ALONE, asked.name)
        ),
        change.embedded,
    ),
    "edited": Word(change.has_callback, change.callback(change.shrink)),
    "cutoff": Word(change.can_be_cut, change.cut_off),
    "stopped": Word(
        lambda asked: (
            change.has_callback(asked) and hasattr(pipeline_class(asked.name), "interrupt")
        ),
        change.callback(change.stop),
    ),
    "truncated": Word(
        lambda asked: "strength" in asked.call,
        lambda *args: {"strength": 0.7, "num_inference_steps": 3},
    ),
    "ended": Word(
        lambda asked: "denoising_end" in asked.call,
        lambda *args: {"denoising_end": 0.5, "num_inference_steps": 4, "output_type": "latent"},
    ),
    "started": Word(
        lambda asked: "denoising_start" in asked.call and "controlnet" not in asked.init,
        lambda *args: {
            "denoising_start": 0.5,
            "num_inference_steps": 4,
            "image": noise(2, 4, 8, 12),
        },
    ),
    "several": Word(
        lambda asked: "controlnet" in asked.init or "adapter" in asked.init,
        change.for_two,
        change.two,
    ),
    "guess": Word(
        lambda asked: (
            "guess_mode" in asked.call
            and asked.can_guide
            and not re.search("PAG|Union", asked.name)
        ),
        lambda *args: {"guess_mode": True},
    ),
    "window": Word(
        lambda asked: "control_guidance_end" in asked.call,
        lambda *args: {"control_guidance_end": 0.5},
    ),
    "union": Word(
        # with one mode for all, the other classes give a batch of two a mode of one
        lambda asked: asked.name == "FluxControlNetPipeline",
        lambda *args: {"control_mode": 1},
        lambda name: {"controlnet": change.union()},
    ),
    "repeated": Word(
        lambda asked: (
            "num_images_per_prompt" in asked.call
            and not re.search("AltDiffusionImg2Img|LDM3D|DiffEdit", asked.name)
        ),
        change.one_row,
    ),
    "overlay": Word(
        # the two hand their checks no output type, or a list of images, and fail
        lambda asked: (
            "padding_mask_crop" in asked.call
            and not re.search("DiffusionPAGInpaint|ControlNetUnionInpaint", asked.name)
        ),
        change.overlay,
    ),
    "unsafe": Word(
        lambda asked: (
            "safety_checker" in asked.init
            and not re.search("LDM3D|StableDiffusionUpscale", asked.name)
        ),
        components=lambda name: {
            "safety_checker": change.Blackens(),
            "feature_extractor": image_processor(),
        },
    ),
    "nine": Word(
        lambda asked: (
            "mask_image" in asked.call
            and "unet" in asked.init
            and not re.search("Union|Legacy|DiffEdit|Paint", asked.name.replace("Inpaint", ""))
        ),
        components=change.nine_channels,
    ),
    "alone": Word(
        lambda asked: "generator" in asked.call,
        lambda *args: {"generator": torch.Generator().manual_seed(3)},
    ),
}
"""Every word, in the order in which variants are tried."""
