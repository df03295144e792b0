"""Tiny random components for any pipeline class, chosen by the type that its `__init__` asks for."""

import ast
import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetUnionModel,
    ControlNetXSAdapter,
    FluxTransformer2DModel,
    MotionAdapter,
    PriorTransformer,
    T2IAdapter,
    UNet2DConditionModel,
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

from tests.models import (
    UNET,
    UNET_XL,
    UP_BLOCKS,
    UP_BLOCKS_XL,
    clip,
    control_network,
    flux,
    plain_controlnet,
    randomised,
    tokenizer,
)

WIDTH = 32  # of every text and image embedding
CHANNELS = {  # of a U-Net's input where it is not the 4 of its latents
    "InstructPix2Pix": 8,
    "Depth2Img": 5,
    "StableDiffusionUpscale": 7,
    "PaintByExample": 9,
    "MarigoldDepth": 8,
    "MarigoldNormals": 8,
    "PIA": 9,
}
FLUX_CHANNELS = {  # of a FLUX transformer's input where it is not the 16 of its packed latents
    r"FluxControl(Img2Img|Inpaint)?Pipeline": 32,
    "FluxFill|VisualCloze": 16 + 16 + 64,
}
# No block of these U-Nets is a BasicTransformerBlock, as in Kandinsky, DeepFloyd IF and unCLIP.
WITHOUT_BLOCKS = {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
K_BLOCKS: dict[str, Any] = {
    "block_out_channels": (32, 32),
    "attention_head_dim": 8,
    "layers_per_block": 1,
    "norm_num_groups": None,
    "act_fn": "gelu",
    "timestep_post_act": "gelu",
    "time_cond_proj_dim": 128 + WIDTH,
    "conv_in_kernel": 1,
    "conv_out_kernel": 1,
    "resnet_time_scale_shift": "scale_shift",
    "time_embedding_type": "fourier",
    "mid_block_type": None,
    "down_block_types": ("KDownBlock2D", "KCrossAttnDownBlock2D"),
    "up_block_types": ("KCrossAttnUpBlock2D", "KUpBlock2D"),
    "in_channels": 8,
    "out_channels": 5,
    "cross_attention_dim": WIDTH,
}
SCHEDULERS = {  # where the annotation leaves the choice
    "KarrasDiffusionSchedulers": lambda name: (
        "EulerDiscreteScheduler" if is_xl(name) else "DDIMScheduler"
    ),
    "SchedulerMixin": lambda name: (
        "DDIMParallelScheduler" if "Paradigms" in name else "DDIMScheduler"
    ),
}
CLIPPED = {"clip_sample": False, "steps_offset": 1}


def is_xl(name: str) -> bool:
    """Whether the class runs Stable Diffusion XL's U-Net."""
    return re.search("XL|Kolors", name) is not None


class Stand(nn.Module):
    """In the place of a component that no pass of the denoiser reads."""

    device, dtype = torch.device("cpu"), torch.float32


@cache
def whole_flux() -> Any:
    return flux()


def unet(name: str) -> UNet2DConditionModel:
    """One model for all classes whose U-Nets have the same sizes."""
    return _unet(repr(sorted(unet_sizes(name).items())))


@cache
def _unet(sizes: str) -> UNet2DConditionModel:
    return randomised(UNet2DConditionModel(**dict(ast.literal_eval(sizes))))


def unet_sizes(name: str) -> dict[str, Any]:
    """Arguments of the U-Net that the class runs."""
    if "LatentUpscale" in name:
        return K_BLOCKS
    sizes: dict[str, Any] = dict(UNET_XL if is_xl(name) else UNET)
    sizes["up_block_types"] = UP_BLOCKS_XL if is_xl(name) else UP_BLOCKS
    sizes["cross_attention_dim"] = 2 * WIDTH if is_xl(name) and "Kolors" not in name else WIDTH
    sizes["in_channels"] = next((n for key, n in CHANNELS.items() if key in name), 4)
    if re.search("Kandinsky|^IF|UnCLIPPipeline|UnCLIPImage", name) and "Stable" not in name:
        sizes |= WITHOUT_BLOCKS
    if "LatentConsistency" in name:
        sizes["time_cond_proj_dim"] = 32
    if "StableUnCLIP" in name:
        sizes |= {
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 2 * WIDTH,
        }
    if "StableDiffusionUpscale" in name:
        # as published: attention of the first level is to the text alone
        sizes |= {"num_class_embeds": 1000, "only_cross_attention": (True, False)}
    if "ControlNetXS" in name:
        sizes["layers_per_block"] = 2  # ControlNetXSAdapter knows no other number
    if "GLIGEN" in name:
        sizes["attention_type"] = "gated-text-image" if "TextImage" in name else "gated"
    return sizes


@cache
def transformer(channels: int) -> FluxTransformer2DModel:
    known = inspect.signature(FluxTransformer2DModel.__init__).parameters
    sizes = {k: v for k, v in whole_flux().transformer.config.items() if k in known}
    sizes |= {"in_channels": channels, "out_channels": 16}
    return randomised(FluxTransformer2DModel(**sizes))


@cache
def vae(channels: int) -> AutoencoderKL:
    model = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    return randomised(model, seed=5)


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


def control(name: str) -> Any:
    if name.startswith("Flux"):
        return flux_control()
    return unet_control(is_xl(name), "Union" in name, unet_sizes(name)["cross_attention_dim"])


@cache
def flux_control() -> Any:
    return plain_controlnet()


@cache
def unet_control(large: bool, union: bool, width: int) -> Any:
    sizes = UNET_XL if large else UNET
    if not union:
        return control_network(sizes, width)
    kept = {k: v for k, v in sizes.items() if k != "sample_size"}
    return randomised(
        ControlNetUnionModel(
            **kept,
            cross_attention_dim=width,
            conditioning_embedding_out_channels=(4, 8),
            num_trans_channel=8,
            num_trans_head=2,
            num_proj_channel=8,
        ),
        seed=6,
    )


def adapter(name: str) -> T2IAdapter:
    """Its features are added inside the U-Net's down blocks, one a level."""
    kind = "full_adapter_xl" if is_xl(name) else "full_adapter"
    sizes = {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 4 if is_xl(name) else 2}
    return randomised(T2IAdapter(in_channels=3, adapter_type=kind, **sizes), seed=6)


def motion() -> MotionAdapter:
    sizes: dict[str, Any] = {"block_out_channels": (8, 16), "motion_layers_per_block": 1}
    return MotionAdapter(motion_num_attention_heads=2, motion_norm_num_groups=2, **sizes)


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


def prior() -> PriorTransformer:
    """Makes StableUnCLIP's image embedding, with a scheduler of its own."""
    sizes: dict[str, Any] = {"embedding_dim": WIDTH, "num_attention_heads": 2, "num_layers": 1}
    return randomised(PriorTransformer(attention_head_dim=12, **sizes), seed=9)


def scheduler(name: str, asked: str) -> Any:
    known = SCHEDULERS.get(asked, lambda name: asked.split(" | ")[0])(name)
    kind = getattr(diffusers, known)
    given = CLIPPED if known.startswith(("DDIM", "DDPM", "PNDM")) else {}
    if known == "FlowMatchEulerDiscreteScheduler":
        return kind.from_config(whole_flux().scheduler.config)
    return kind(
        **{k: v for k, v in given.items() if k in kind.__init__.__wrapped__.__code__.co_varnames}
    )


# type named in the annotation -> its component for a class of that name; the first that is named
MAKERS: dict[str, Callable[[str], Any]] = {
    "ControlNetXSAdapter": lambda name: ControlNetXSAdapter.from_unet(
        unet(name), size_ratio=0.5, conditioning_embedding_out_channels=(4, 8)
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
