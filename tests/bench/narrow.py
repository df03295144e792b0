"""A random FLUX of full depth and narrow width, so that the cost of hooks shows on one CPU core."""

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

SIDE = 256  # pixels: 256 image tokens
TEXT_TOKENS = 64
DOUBLE, SINGLE = 19, 38
HEADS, HEAD_DIM = 2, 32


def pipeline() -> Any:
    """A FluxPipeline with 19 + 38 blocks of 64 channels; the text is given as embeddings."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=DOUBLE,
        num_single_layers=SINGLE,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    vae = small_vae(channels=8)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    absent: Any = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = FluxPipeline(scheduler=scheduler, vae=vae, transformer=transformer, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def small_vae(channels: int, latents: int = 4) -> AutoencoderKL:
    """A random VAE of FLUX's factor 8; only its configuration matters where latents are returned."""
    levels = 4
    config: Any = {
        "block_out_channels": (channels,) * levels,
        "norm_num_groups": 4,
        "latent_channels": latents,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return AutoencoderKL(**config)


def call(pipe: Any, steps: int) -> torch.Tensor:
    """Packed latents after a run of the pipeline."""
    return pipe(
        prompt_embeds=torch.ones(1, TEXT_TOKENS, 32),
        pooled_prompt_embeds=torch.ones(1, 32),
        num_inference_steps=steps,
        height=SIDE,
        width=SIDE,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
