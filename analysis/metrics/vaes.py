"""VAEs by their class: from latents in the scheduler's scale to what the VAE makes of them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage
from einops import rearrange

from stepscope.hooks.errors import StepscopeError, nearest


def side(config: Mapping[str, Any]) -> int:
    """Pixels along the side of a latent."""
    if "temperal_downsample" in config:  # AutoencoderKLQwenImage, QwenImagePipeline.__init__
        return 2 ** len(config["temperal_downsample"])
    return 2 ** (len(config["block_out_channels"]) - 1)


def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """What the VAE makes of latents (n, channel, y, x) in the scheduler's scale, (n, rgb, row, column)."""
    return _DECODE[kind_of(type(vae).__name__)](vae, latents)


def kind_of(name: str) -> type:
    """The class of a VAE by its name. Raises StepscopeError for one that is not known."""
    known = {kind.__name__: kind for kind in _DECODE}
    if name not in known:
        raise StepscopeError(
            f"vae: how latents are decoded by a {name} is not known; {nearest(name, known)}"
        )
    return known[name]


def unscaled(config: Mapping[str, Any], latents: torch.Tensor) -> torch.Tensor:
    """Latents (n, channel, y, x) in the scale of an AutoencoderKL, from the scheduler's.

    As FluxPipeline.__call__ and StableDiffusionXLPipeline.__call__ end.
    """
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(latents) for v in (mean, std))
        return latents * std / config["scaling_factor"] + mean
    return latents / config["scaling_factor"] + (config.get("shift_factor") or 0.0)


def _plain(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    return vae.decode(unscaled(vae.config, latents), return_dict=False)[0]


def _flux2(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Statistics are of 2 x 2 latents together (Flux2Pipeline.__call__, its end)."""
    z = rearrange(latents, "n channel (y p) (x q) -> n (channel p q) y x", p=2, q=2)
    mean, variance = (v.view(1, -1, 1, 1).to(z) for v in (vae.bn.running_mean, vae.bn.running_var))
    z = z * torch.sqrt(variance + vae.config.batch_norm_eps) + mean
    z = rearrange(z, "n (channel p q) y x -> n channel (y p) (x q)", p=2, q=2)
    return vae.decode(z, return_dict=False)[0]


def _qwen(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """A VAE of videos, and the image is their one frame (QwenImagePipeline.__call__, its end)."""
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1).to(latents)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    z = latents / (1.0 / std) + mean
    return vae.decode(z[:, :, None], return_dict=False)[0][:, :, 0]


_DECODE: dict[type, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    AutoencoderKL: _plain,
    AutoencoderKLFlux2: _flux2,
    AutoencoderKLQwenImage: _qwen,
}
