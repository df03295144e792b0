"""What each word of a variant changes: components, the pipeline itself, and the call's arguments."""

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from diffusers import FluxControlNetModel, MultiAdapter
from torch import nn

from tests.every_pipeline import build, pipeline_class
from tests.every_pipeline_calls import NEGATIVES, Call, asked_of, picture, plain_arguments
from tests.every_pipeline_networks import unet_sizes, unet_with
from tests.every_pipeline_parts import part
from tests.models import plain_controlnet, randomised

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What a class's `__call__` and `__init__` ask for, by name."""

    name: str
    call: Mapping[str, inspect.Parameter]
    init: Mapping[str, inspect.Parameter]

    @property
    def can_guide(self) -> bool:
        """Whether it has classifier-free guidance."""
        if self.name.startswith("Flux"):
            return "true_cfg_scale" in self.call
        return "LatentConsistency" not in self.name


def guided(call: Call, given: Arguments, asked: Mapping[str, Any]) -> Arguments:
    scale = 3.5 if call.is_flux else 5.0
    return {"negative_prompt": NEGATIVES, "true_cfg_scale": 3.0, "guidance_scale": scale}


def own_denoiser(pipe: Any) -> Any:
    """The pipeline's denoiser becomes a copy that only this pipeline has."""
    name = "transformer" if getattr(pipe, "transformer", None) is not None else "unet"
    pipe.register_modules(**{name: copy.deepcopy(getattr(pipe, name))})
    return getattr(pipe, name)


# Several ControlNets or T2I-Adapters, and ControlNets of other kinds.


def two(name: str) -> dict[str, Any]:
    asked = inspect.signature(pipeline_class(name).__init__).parameters
    word = "controlnet" if "controlnet" in asked else "adapter"
    annotation = str(asked[word].annotation)
    two = [part(name, annotation), copy.deepcopy(part(name, annotation))]
    return {word: MultiAdapter(two) if word == "adapter" else two}


def for_two(call: Call, given: Arguments, asked: Mapping[str, Any]) -> Arguments:
    name = "control_image" if "control_image" in asked else "image"
    one = given[name]
    modes = [0, 1] if "Union" in call.name else [None, None]
    return {
        name: [*one, *one] if isinstance(one, list) else [one, one.flip(0)],
        "controlnet_conditioning_scale": [0.5, 1.0],
        "adapter_conditioning_scale": [0.5, 1.0],
        "control_mode": modes,
    }


@cache
def union() -> FluxControlNetModel:
    sizes: dict[str, Any] = dict(plain_controlnet().config) | {"num_mode": 2}
    known = inspect.signature(FluxControlNetModel.__init__).parameters
    return randomised(FluxControlNetModel(**{k: v for k, v in sizes.items() if k in known}))


# Embeddings in the place of words.

WORDS_ALONE = r"KolorsImg2Img|StableUnCLIPPipeline|StableDiffusionInstructPix2Pix|DiffEdit"
"""Classes that ask for the prompt in words, whatever their signature says, or encode it unseen."""


@cache
def _encoded(name: str) -> tuple[torch.Tensor, ...]:
    """What the class's own `encode_prompt` makes of the prompts, seen in a plain call."""
    pipe, seen = build(name), []
    encode = pipe.encode_prompt

    def keep(*args: Any, **kwargs: Any) -> Any:
        seen.append(encode(*args, **kwargs))
        return seen[-1]

    pipe.encode_prompt = keep
    pipe(**asked_of(plain_arguments(Call(name)), name))
    return seen[0]


def embedded(call: Call, given: Arguments, asked: Mapping[str, Any]) -> Arguments:
    """The prompt as embeddings; a negative prompt stays in words."""
    made = _encoded(call.name)
    found: Arguments = {"prompt": None, "prompt_embeds": made[0]}
    if call.is_flux or len(made) == 4:
        found["pooled_prompt_embeds"] = made[1 if call.is_flux else 2]
    return found


# Callbacks.


def callback(call: Callable[..., dict[str, Any]], steps: int = 3) -> Callable[..., Arguments]:
    return lambda *args: {"callback_on_step_end": call, "num_inference_steps": steps}


CUT = r"prompt_embeds|add_text_embeds|add_time_ids|(control_)?image|mask|masked_image_latents|"
CUT += r"depth_mask|image_latents"


def cut_off(call: Call, given: Arguments, asked: Mapping[str, Any]) -> Arguments:
    known = pipeline_class(call.name)._callback_tensor_inputs  # pyright: ignore[reportAttributeAccessIssue]
    names = [name for name in known if re.fullmatch(CUT, name)]
    return callback(cut)() | {"callback_on_step_end_tensor_inputs": names}


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


def stop(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
    """As user interfaces do: the first step of three is the last that runs."""
    pipe._interrupt = True
    return {}


def can_be_cut(asked: Asked) -> bool:
    """Guidance that is read at every step; and a ControlNet's image may be cut with the rows."""
    control = "controlnet" in asked.init and not re.search(
        r"ControlNet(Img2Img)?Pipeline$", asked.name
    )
    flux, pag = asked.name.startswith("Flux"), "pag_scale" in asked.call
    return has_callback(asked) and asked.can_guide and not (flux or pag or control)


def has_callback(asked: Asked) -> bool:
    return "callback_on_step_end" in asked.call


# Pictures.


class Blackens(nn.Module):
    """A safety checker that finds something in the first image of every batch."""

    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, clip_input: torch.Tensor, images: Any) -> tuple[Any, list[bool]]:
        images[0] = images[0] * 0
        return images, [True] + [False] * (len(images) - 1)


def one_row(call: Call, given: Arguments, asked: Mapping[str, Any]) -> Arguments:
    """Two images of one prompt and one picture, as a tuple of PIL images."""
    found: Arguments = {"num_images_per_prompt": 2, "output_type": "pil", "return_dict": False}
    for name, value in given.items():
        if re.fullmatch(r"(.*_)?image|(negative_)?prompt|depth_map", name):
            found[name] = [v[:1] for v in value] if _is_batches(value) else value[:1]
    return found


def _is_batches(value: Any) -> bool:
    return isinstance(value, list) and isinstance(value[0], torch.Tensor)


def overlay(call: Call, given: Arguments, asked: Mapping[str, Any]) -> Arguments:
    """The painted part is pasted into the picture, which is larger."""
    size = 2 * call.size[0], 2 * call.size[1]
    mask = picture(4, *size).convert("L").point(lambda value: 0)
    mask.paste(255, (8, 8, 24, 20))
    return {
        "control_image": picture(5, *size),
        "image": picture(3, *size),
        "mask_image": mask,
        "padding_mask_crop": 4,
        "output_type": "pil",
    }


def nine_channels(name: str) -> dict[str, Any]:
    return {"unet": unet_with(unet_sizes(name) | {"in_channels": 9})}
