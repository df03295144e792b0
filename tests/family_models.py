"""Tiny random pipelines of families beside FLUX and U-Nets: real pipelines, transformers and VAEs.

In the place of each large language model stands a small one, which gives hidden states as they do.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPTextModelWithProjection,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5EncoderModel,
)

from tests.models import INFINITE_YOU, clip, randomised, tokenizer

WIDTH = 32  # of every text embedding, and of every transformer
SIZES: dict[str, Any] = {"attention_head_dim": 16, "num_attention_heads": 2}


@cache
def t5() -> Any:
    return T5EncoderModel.from_pretrained(INFINITE_YOU / "flux-dev" / "text_encoder_2").eval()


@cache
def vae() -> Any:
    return diffusers.AutoencoderKL.from_pretrained(INFINITE_YOU / "flux-dev" / "vae").eval()


LEVELS: dict[str, Any] = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@cache
def vae_of_sd3() -> Any:
    scale: dict[str, Any] = {"scaling_factor": 1.5305, "shift_factor": 0.0609}
    return randomised(diffusers.AutoencoderKL(latent_channels=16, **scale, **LEVELS), seed=5)


@cache
def vae_of_flux2() -> Any:
    """With statistics of latents that are not those of a new batch norm."""
    made = randomised(diffusers.AutoencoderKLFlux2(latent_channels=4, **LEVELS), seed=5)
    generator = torch.Generator().manual_seed(9)
    made.bn.running_mean.copy_(torch.randn(16, generator=generator))
    made.bn.running_var.copy_(torch.rand(16, generator=generator) + 0.5)
    return made


@cache
def vae_of_qwen() -> Any:
    return randomised(
        diffusers.AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[1.5, 0.7, 2.0, 1.0],
        ),
        seed=5,
    )


@cache
def language_model() -> Any:
    config = Qwen3Config(
        vocab_size=23,
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        pad_token_id=0,
    )
    return randomised(Qwen3ForCausalLM(config), seed=4)


class Chat:
    """A tokenizer with a template for messages, as processors and language models have."""

    def __init__(self, side: str = "right") -> None:
        self.side, self.words = side, words()
        self.pad_token_id, self.eos_token_id = self.words.pad_token_id, self.words.eos_token_id

    def __call__(self, texts: Any, **given: Any) -> Any:
        return self.words(texts, padding_side=self.side, **given)

    def apply_chat_template(self, messages: Any, *, tokenize: bool = True, **given: Any) -> Any:
        def said(message: Any) -> str:
            content = message[-1]["content"]
            return content if isinstance(content, str) else content[0]["text"]

        if not tokenize:
            return said(messages)
        known = ("padding", "truncation", "max_length", "return_tensors")
        return self([said(m) for m in messages], **{k: given[k] for k in known})


@cache
def words() -> Any:
    return AutoTokenizer.from_pretrained(INFINITE_YOU / "flux-dev" / "tokenizer_2")


def scheduler(**given: Any) -> Any:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, **given)


def moving() -> Any:
    """A scheduler whose shift depends on the number of tokens."""
    return scheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)


def made(kind: str, **parts: Any) -> Any:
    pipe = getattr(diffusers, kind)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd3_transformer() -> nn.Module:
    """As SD3.5 medium: the first two of four blocks have a second attention."""
    return randomised(
        diffusers.SD3Transformer2DModel(
            sample_size=16,
            in_channels=16,
            out_channels=16,
            num_layers=4,
            joint_attention_dim=WIDTH,
            caption_projection_dim=WIDTH,
            pooled_projection_dim=64,
            pos_embed_max_size=16,
            dual_attention_layers=(0, 1),
            qk_norm="rms_norm",
            **SIZES,
        )
    )


def sd3(kind: str = "StableDiffusion3Pipeline") -> Any:
    # of the blocks with one attention, which alone can be perturbed
    parts: dict[str, Any] = {"pag_applied_layers": ["blocks.2"]} if "PAG" in kind else {}
    return made(
        kind,
        transformer=sd3_transformer(),
        scheduler=scheduler(),
        vae=vae_of_sd3(),
        text_encoder=clip(CLIPTextModelWithProjection),
        tokenizer=tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5(),
        tokenizer_3=words(),
        **parts,
    )


def chroma(kind: str = "ChromaPipeline") -> Any:
    transformer = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        approximator_hidden_dim=WIDTH,
        approximator_num_channels=16,
        approximator_layers=1,
        **SIZES,
    )
    return made(
        kind,
        transformer=randomised(transformer),
        scheduler=moving(),
        vae=vae(),
        text_encoder=t5(),
        tokenizer=words(),
    )


def qwen(kind: str = "QwenImagePipeline") -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=3,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
        **SIZES,
    )
    parts = {"processor": Chat()} if "Edit" in kind else {}
    pipe = made(
        kind,
        transformer=randomised(transformer),
        scheduler=moving(),
        vae=vae_of_qwen(),
        text_encoder=language_model(),
        tokenizer=words(),
        **parts,
    )
    # the tiny tokenizer has no tokens for the words of the template
    pipe.prompt_template_encode, pipe.prompt_template_encode_start_idx = "{}", 0
    return pipe


def flux2(kind: str = "Flux2Pipeline", side: str = "right") -> Any:
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=kind == "Flux2Pipeline",
        **SIZES,
    )
    return made(
        kind,
        transformer=randomised(transformer),
        scheduler=moving(),
        vae=vae_of_flux2(),
        text_encoder=language_model(),
        tokenizer=Chat(side),
    )


def z_image(kind: str = "ZImagePipeline") -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=WIDTH,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 6, 6],
        axes_lens=[128, 16, 16],
    )
    return made(
        kind,
        transformer=randomised(transformer),
        scheduler=moving(),
        vae=vae(),
        text_encoder=language_model(),
        tokenizer=Chat(),
    )


MADE: dict[str, Callable[[], Any]] = {
    "sd3": sd3,
    "chroma": chroma,
    "qwen": qwen,
    "flux2": flux2,
    "klein": lambda: flux2("Flux2KleinPipeline"),
    "z_image": z_image,
}
