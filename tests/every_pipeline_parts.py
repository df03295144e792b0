"""Tiny random components for any pipeline class, chosen by the type that its `__init__` asks for."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import (
    ControlNetXSAdapter,
    VQModel,
)
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.every_pipeline_networks import (
    FLUX_CHANNELS,
    WIDTH,
    adapter,
    control,
    is_xl,
    motion,
    prior,
    transformer,
    unet,
    vae,
    whole_flux,
)
from tests.models import (
    clip,
    randomised,
    tokenizer,
)

SCHEDULERS = {  # where the annotation leaves the choice
    "KarrasDiffusionSchedulers": lambda name: (
        "EulerDiscreteScheduler" if is_xl(name) else "DDIMScheduler"
    ),
    "SchedulerMixin": lambda name: (
        "DDIMParallelScheduler" if "Paradigms" in name else "DDIMScheduler"
    ),
}
CLIPPED = {"clip_sample": False, "steps_offset": 1}


class Stand(nn.Module):
    """In the place of a component that no pass of the denoiser reads."""

    device, dtype = torch.device("cpu"), torch.float32


@cache
def vision(kind: Any = CLIPVisionModelWithProjection) -> Any:
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=37,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    return randomised(kind(config), seed=8)


@cache
def image_processor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(crop_size={"height": 16, "width": 16}, size={"shortest_edge": 16})


@cache
def text(kind: Any) -> Any:
    return clip(kind)


@cache
def t5() -> Any:
    return whole_flux().text_encoder_2


@cache
def words() -> Any:
    return tokenizer()


class ChatTokenizer:
    """Kolors' tokenizer gives positions too and pads from the left."""

    model_max_length = 16

    def __call__(self, texts: Any, **given: Any) -> Any:
        found = words()(texts, padding_side="left", **given)
        found["position_ids"] = (found["attention_mask"].cumsum(1) - 1).clamp_min(0)
        return found


@cache
def chat() -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    sizes: dict[str, Any] = {"num_layers": 2, "padded_vocab_size": 32, "num_attention_heads": 4}
    sizes |= {"hidden_size": WIDTH, "ffn_hidden_size": 37, "kv_channels": 8, "seq_length": 64}
    sizes |= {"original_rope": True}
    config = ChatGLMConfig(**sizes, torch_dtype=torch.float32, use_cache=False)
    config.num_hidden_layers = 2
    return randomised(ChatGLMModel(config), seed=4)


def roberta() -> Any:
    from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
        RobertaSeriesConfig,
        RobertaSeriesModelWithTransformation,
    )

    sizes: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 37, "vocab_size": 1000}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 100}
    config = RobertaSeriesConfig(project_dim=WIDTH, **sizes)
    return randomised(RobertaSeriesModelWithTransformation(config), seed=4)


def painted() -> Any:
    from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder

    return vision(PaintByExampleImageEncoder)


def normalizer() -> Any:
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

    return StableUnCLIPImageNormalizer(embedding_dim=WIDTH)


def scheduler(name: str, asked: str) -> Any:
    known = SCHEDULERS.get(asked, lambda name: asked.split(" | ")[0])(name)
    kind = getattr(diffusers, known)
    given = CLIPPED if known.startswith(("DDIM", "DDPM", "PNDM")) else {}
    if known == "FlowMatchEulerDiscreteScheduler":
        return kind.from_config(whole_flux().scheduler.config)
    return kind(
        **{k: v for k, v in given.items() if k in kind.__init__.__wrapped__.__code__.co_varnames}
    )


_TWO: Any = (4, 8)
# type named in the annotation -> its component for a class of that name; the first that is named
MAKERS: dict[str, Callable[[str], Any]] = {
    "ControlNetXSAdapter": lambda name: ControlNetXSAdapter.from_unet(
        unet(name), size_ratio=0.5, conditioning_embedding_out_channels=_TWO
    ),
    "UNet2DConditionModel": unet,
    "UNetFlatConditionModel": unet,
    "FluxTransformer2DModel": lambda name: transformer(
        next((n for key, n in FLUX_CHANNELS.items() if re.match(key, name)), 16)
    ),
    "FluxControlNetModel": control,
    "ControlNetUnionModel": control,
    "SparseControlNetModel": lambda name: Stand(),
    "ControlNetModel": control,
    "T2IAdapter": adapter,
    "MotionAdapter": lambda name: motion(),
    "PriorTransformer": lambda name: prior(),
    "VQModel": lambda name: VQModel(block_out_channels=(8,), norm_num_groups=4),
    "AutoencoderKL": lambda name: (
        whole_flux().vae if re.match("Flux|VisualCloze", name) else vae(6 if "LDM3D" in name else 3)
    ),
    "PaintByExampleImageEncoder": lambda name: painted(),
    "CLIPVisionModelWithProjection": lambda name: vision(),
    "CLIPImageProcessorPil": lambda name: image_processor(),
    "CLIPTextModelWithProjection": lambda name: text(CLIPTextModelWithProjection),
    "CLIPTextModel": lambda name: (
        whole_flux().text_encoder if re.match("Flux|VisualCloze", name) else text(CLIPTextModel)
    ),
    "T5EncoderModel": lambda name: t5(),
    "RobertaSeriesModelWithTransformation": lambda name: roberta(),
    "ChatGLMModel": lambda name: chat(),
    "ChatGLMTokenizer": lambda name: ChatTokenizer(),
    "StableUnCLIPImageNormalizer": lambda name: normalizer(),
    "Tokenizer": lambda name: words(),
}


def part(name: str, asked: str) -> Any:
    """The component of type `asked`, as the annotation writes it, for the pipeline class `name`."""
    if "Scheduler" in asked:
        return scheduler(name, asked)
    for kind, make in MAKERS.items():
        if re.search(kind, asked):
            return make(name)
    return None if "None" in asked else Stand()
