"""The pocket FLUX: its sizes, its latents, and its velocity.

Everything is diffusers' own class with small numbers, so what is trained here is loaded anywhere.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from diffusers import FluxControlNetModel, FluxPipeline, FluxTransformer2DModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from einops import rearrange
from torch import Tensor, nn

from stepscope.pocket.process import autocast, device

HEADS, HEAD_WIDTH, ROPE_AXES = 5, 32, (8, 12, 12)
WIDTH = HEADS * HEAD_WIDTH
DOUBLE_BLOCKS, SINGLE_BLOCKS = 4, 8
TEXT_WIDTH, TEXT_TOKENS = 128, 32
# InfiniteYou: 8 identity tokens stand in the text's place, guidance fixed at 1.
INFUSE_DOUBLE, INFUSE_SINGLE, IDENTITY_TOKENS, INFUSE_GUIDANCE = 2, 4, 8, 1.0
# InfiniteYou's loader derives the head width from 20 heads, so the width is a multiple of 20.
RESAMPLER = {"hidden_dims": 240, "depth": 2, "heads": 20, "dim_head": 12}
FACE_NUMBERS = 512
# 128 pixels, 4 a latent, packed 2 x 2: (16, 32, 32) becomes 256 tokens of 64 channels.
GRID, LATENT_CHANNELS, TOKEN_CHANNELS = 16, 16, 64


class Words(NamedTuple):
    """What a transformer sees of a prompt: T5's (b, token, 128) and CLIP's pooled (b, 128)."""

    tokens: Tensor
    pooled: Tensor


class Residuals(NamedTuple):
    """What InfuseNet adds between blocks, already scaled: one (b, 256, width) per block of it."""

    double: tuple[Tensor, ...]
    single: tuple[Tensor, ...]


def transformer(*, guidance: bool, fast: bool = True) -> FluxTransformer2DModel:
    """A new FLUX transformer on the current device; `guidance` gives it dev's embedding."""
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=TOKEN_CHANNELS,
        num_layers=DOUBLE_BLOCKS,
        num_single_layers=SINGLE_BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=ROPE_AXES,
    )
    return ready(model, fast=fast)


def infusenet(dev: FluxTransformer2DModel) -> FluxControlNetModel:
    """A new InfuseNet: dev's own first blocks, every output zero."""
    model = FluxControlNetModel.from_transformer(
        dev,
        num_layers=INFUSE_DOUBLE,
        num_single_layers=INFUSE_SINGLE,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
    )
    return ready(model)


def resampler() -> IPAdapterPlusImageProjection:
    """A new projection from a unit-norm (b, 1, 512) face to (b, 8, 128) identity tokens.

    A unit vector's numbers are about 1/sqrt(512): the first layer starts large enough, and without
    bias, for its layer norm to see the face and not the bias.
    """
    model = IPAdapterPlusImageProjection(
        embed_dims=FACE_NUMBERS, output_dims=TEXT_WIDTH, num_queries=IDENTITY_TOKENS, **RESAMPLER
    )
    nn.init.normal_(model.proj_in.weight)
    nn.init.zeros_(model.proj_in.bias)
    return model.to(device())


def ready(model: Any, *, fast: bool = True) -> Any:
    """The model on the current device, its time exact, its blocks compiled on CUDA where `fast`.

    Under autocast diffusers rounds the time to bfloat16, which moves it by up to 2 in 1000; the
    hook hands the embedding the float32 values that `_set_time` keeps. Positions are turned into
    rotations once: diffusers' some seventy small kernels a pass keep a GPU waiting for Python.
    """
    model = model.to(device()).train()
    model.pos_embed = Remembered(model.pos_embed)
    model.time_text_embed.register_forward_pre_hook(
        lambda embedding, arguments: (*embedding.exact_time, arguments[-1])
    )
    if fast and device().type == "cuda":
        torch._dynamo.config.recompile_limit = 64  # pyright: ignore
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            block.compile()
    return model


class Remembered(nn.Module):
    """A position embedding that answers a second time with what it said first: ids never change.

    Only good for this file's ids: as many text tokens of zeros as were counted, then the grid.
    """

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.embedding = embedding
        self.said: dict[tuple[int, torch.device], Any] = {}

    def forward(self, ids: Tensor) -> Any:
        """ids (token, 3) to the rotations' cosines and sines, (token, head width) each."""
        asked = len(ids), ids.device
        if asked not in self.said:
            self.said[asked] = self.embedding(ids)
        return self.said[asked]


def copy_weights(source: nn.Module, target: Any) -> Any:
    """Fill the target with the source's weights of the same names, and return it."""
    missing, unexpected = target.load_state_dict(source.state_dict(), strict=False)
    strange = [n for n in [*missing, *unexpected] if "guidance_embedder" not in n]
    if strange:
        raise ValueError(f"weights without a counterpart: {', '.join(strange)}")
    return target


def pack(latents: Tensor) -> Tensor:
    """(b, 16, 32, 32) to (b, 256, 64), in FluxPipeline's order."""
    return rearrange(latents, "b c (h i) (w j) -> b (h w) (c i j)", i=2, j=2)


def unpack(tokens: Tensor) -> Tensor:
    """(b, 256, 64) to (b, 16, 32, 32)."""
    return rearrange(tokens, "b (h w) (c i j) -> b c (h i) (w j)", h=GRID, i=2, j=2)


def noise(count: int, seed: int) -> Tensor:
    """Packed starting noise, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, GRID * GRID, TOKEN_CHANNELS, generator=generator).to(device())


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The rectified flow's straight line, (1 - sigma) x0 + sigma noise; sigma is (b,)."""
    return torch.lerp(clean, noise, sigma[:, None, None])


def velocity(
    model: FluxTransformer2DModel,
    x: Tensor,
    sigma: Tensor,
    words: Words,
    guidance: Tensor | None = None,
    residuals: Residuals | None = None,
    image: Tensor | None = None,
) -> Tensor:
    """The model's velocity (noise - x0) at packed x, float32; sigma and guidance are (b,).

    image: tokens of an IP-Adapter's picture, (b, token, channel), for a model that has one.
    """
    _set_time(model, sigma, guidance)
    with autocast():
        return model(
            hidden_states=x,
            encoder_hidden_states=words.tokens,
            pooled_projections=words.pooled,
            timestep=sigma,
            guidance=guidance,
            img_ids=_image_ids(device()),
            txt_ids=x.new_zeros(words.tokens.shape[1], 3),
            controlnet_block_samples=residuals.double if residuals else None,
            controlnet_single_block_samples=residuals.single if residuals else None,
            joint_attention_kwargs=None if image is None else {"ip_hidden_states": [image]},
            return_dict=False,
        )[0].float()


def infuse(
    model: FluxControlNetModel,
    x: Tensor,
    sigma: Tensor,
    identity: Tensor,
    pooled: Tensor,
    black: Tensor,
    scale: float = 1.0,
) -> Residuals:
    """InfuseNet's residuals: identity tokens in place of text, a black control image."""
    guidance = torch.full_like(sigma, INFUSE_GUIDANCE)
    _set_time(model, sigma, guidance)
    with autocast():
        double, single = model(
            hidden_states=x,
            controlnet_cond=black.expand(len(x), -1, -1),
            conditioning_scale=scale,
            encoder_hidden_states=identity,
            pooled_projections=pooled,
            timestep=sigma,
            guidance=guidance,
            img_ids=_image_ids(device()),
            txt_ids=x.new_zeros(identity.shape[1], 3),
            return_dict=False,
        )
    return Residuals(double, single)


def _set_time(model: nn.Module, sigma: Tensor, guidance: Tensor | None) -> None:
    exact = (1000 * sigma,) if guidance is None else (1000 * sigma, 1000 * guidance)
    embedding: Any = model.time_text_embed
    embedding.exact_time = exact


@cache
def _image_ids(where: torch.device) -> Tensor:
    return FluxPipeline._prepare_latent_image_ids(1, GRID, GRID, where, torch.float32)
