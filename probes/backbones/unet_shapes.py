"""Shapes of what a U-Net's sites give, without its weights."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from stepscope.hooks.families import blocks_of

TEXT_TOKENS = 77  # CLIP's


class SiteShapes:
    """The shape of every site's output, from one pass without weights, made when it is first asked for."""

    def __init__(self, unet: Any, latent: tuple[int, int, int], xl: bool) -> None:
        self._unet, self._latent, self._xl = unet, latent, xl

    def of(self, site: str) -> tuple[int, int]:
        """(token, channel)."""
        return self._all[site]

    @cached_property
    def _all(self) -> dict[str, tuple[int, int]]:
        with torch.device("meta"):  # one of its own: an adapter may be in the other
            unet: Any = UNet2DConditionModel.from_config(self._unet.config)
        found: dict[str, tuple[int, int]] = {}
        handles = [
            site.module.register_forward_hook(
                self._see(found, f"{block.name}.{site.quantity}", site)
            )
            for block in blocks_of(unet)
            for site in block.sites
        ]
        config: Any = unet.config
        more: dict[str, Any] = {}
        if self._xl:
            width = (
                config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            )
            more["added_cond_kwargs"] = {
                "text_embeds": torch.zeros(1, width, device="meta"),
                "time_ids": torch.zeros(1, 6, device="meta"),
            }
        text = torch.zeros(1, TEXT_TOKENS, _one(config.cross_attention_dim), device="meta")
        try:
            latents = torch.zeros(1, *self._latent, device="meta")
            unet(latents, torch.ones(1, device="meta"), text, **more)
        finally:
            for handle in handles:
                handle.remove()
        return found

    @staticmethod
    def _see(found: dict[str, tuple[int, int]], name: str, site: Any) -> Any:
        def see(module: nn.Module, args: Any, output: Tensor) -> None:
            for stream in site.streams:
                found[f"{name}.{stream}"] = output.shape[-2], output.shape[-1]

        return see


def _one(width: int | Sequence[int]) -> int:
    return width if isinstance(width, int) else width[0]
