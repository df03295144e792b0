"""Tiny random denoisers of any pipeline class, their VAEs, and the networks that are put beside them."""

import ast
import inspect
import re
from functools import cache
from typing import Any

from diffusers import (
    AutoencoderKL,
    ControlNetUnionModel,
    FluxTransformer2DModel,
    MotionAdapter,
    PriorTransformer,
    T2IAdapter,
    UNet2DConditionModel,
)

from tests.models import (
    UNET,
    UNET_XL,
    UP_BLOCKS,
    UP_BLOCKS_XL,
    control_network,
    flux,
    plain_controlnet,
    randomised,
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


def is_xl(name: str) -> bool:
    """Whether the class runs Stable Diffusion XL's U-Net."""
    return re.search("XL|Kolors", name) is not None


@cache
def whole_flux() -> Any:
    return flux()


def unet(name: str) -> UNet2DConditionModel:
    return unet_with(unet_sizes(name))


def unet_with(sizes: dict[str, Any]) -> UNet2DConditionModel:
    """One model for all classes whose U-Nets have the same sizes."""
    return _unet(repr(sorted(sizes.items())))


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
    levels: Any = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    model = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        **levels,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    return randomised(model, seed=5)


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


def prior() -> PriorTransformer:
    """Makes StableUnCLIP's image embedding, with a scheduler of its own."""
    sizes: dict[str, Any] = {"embedding_dim": WIDTH, "num_attention_heads": 2, "num_layers": 1}
    return randomised(PriorTransformer(attention_head_dim=12, **sizes), seed=9)
