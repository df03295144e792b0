"""Stable Diffusion's forward process and DDIM, over (b, 16, 32, 32) latents."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from stepscope.pocket.process import device
from stepscope.pocket.unet.layout import NOISE

TIMES = int(NOISE["num_train_timesteps"])
# Min-SNR weighting (Hang et al. 2023, arXiv 2303.09556, eq. 10), for a loss on the noise.
GAMMA = 5.0
# Below this ratio of signal to noise nothing of a picture is left to be decided.
FAINT = 0.05


@cache
def alphas() -> Tensor:
    """The signal's share of the variance at each of the 1000 times."""
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    return DDPMScheduler(**{name: NOISE[name] for name in names}).alphas_cumprod.to(device())


def noised(clean: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """sqrt(alpha) x0 + sqrt(1 - alpha) noise; alpha is (b,)."""
    alpha = alpha[:, None, None, None]
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def clean_of(x: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """The estimate of x0 that a predicted noise means."""
    alpha = alpha[:, None, None, None]
    return (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()


def min_snr(alpha: Tensor) -> Tensor:
    """The weight of each row's squared error of the noise, (b,)."""
    ratio = alpha / (1 - alpha)
    return ratio.clamp(max=GAMMA) / ratio


def level(alpha: Tensor, faint: float = FAINT) -> Tensor:
    """The weight that makes an error of the noise one of the picture, level down to a ratio of `faint`."""
    return 1 / (alpha / (1 - alpha) + faint)


def times_below(start: int, steps: int) -> list[int]:
    """`steps` + 1 times from start down to 0, even; DDIM's last step leads to the clean picture."""
    return [round(start * (1 - i / steps)) for i in range(steps + 1)]


@torch.no_grad()
def ddim(predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, times: Sequence[int]) -> Tensor:
    """DDIM (Song et al. 2020, eq. 12, eta 0) through the times; x at the last of them.

    predict(x, time (b,)) is the noise, guidance included.
    """
    kept = alphas()
    for now, following in pairwise(times):
        alpha, beyond = kept[now].expand(len(x)), kept[following].expand(len(x))
        noise = predict(x, torch.full((len(x),), now, device=x.device))
        x = noised(clean_of(x, noise, alpha), noise, beyond)
    return x
