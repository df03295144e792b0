"""Train a critic that reads a face from latents, for the adapter's loss: `python -m pocket.critic`.

It maps dev's blurred one-step estimates of x0 to the conditioning encoder's embedding of the true
picture. It knows nothing of the judge, and does not ship. Expect 790 steps of 512 in 25 s on an H200, loss
(1 - cosine) 1 -> .15.
"""

from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional

from stepscope.pocket import album, folders
from stepscope.pocket.flow import FACE_NUMBERS, LATENT_CHANNELS, Words, noised, unpack, velocity
from stepscope.pocket.process import Options, autocast, device, options, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.weights import load_half, save_half

SECONDS = 30.0
BATCH = 512
RATE = 2e-3
# Estimates come from noise up to this level; a share of the pictures is clean.
HIGHEST_SIGMA, CLEAN = 0.9, 0.2
WIDTHS = (96, 160, 256)


class Block(nn.Module):
    """Two 3 x 3 convolutions about a residual; the first may halve the grid."""

    def __init__(self, inside: int, outside: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.GroupNorm(16, outside),
            nn.SiLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.GroupNorm(16, outside),
        )
        self.skip = nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.skip(x) + self.body(x))


class Reader(nn.Module):
    """Latents (b, 16, 32, 32) to some numbers (b, numbers), float32."""

    def __init__(self, numbers: int):
        super().__init__()
        narrow, middle, wide = WIDTHS
        self.body = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, narrow, 3, 1, 1),
            Block(narrow, narrow, 1),
            Block(narrow, middle, 2),
            Block(middle, middle, 1),
            Block(middle, wide, 2),
            Block(wide, wide, 1),
            nn.Conv2d(wide, 64, 1),
            nn.Flatten(),
        )
        self.head = nn.Linear(64 * 64, numbers)

    def forward(self, latents: Tensor) -> Tensor:
        with autocast():
            return self.head(self.body(latents)).float()


class Critic(Reader):
    """Packed latents (b, 256, 64) to unit-norm faces (b, 512), float32."""

    def __init__(self):
        super().__init__(FACE_NUMBERS)

    def forward(self, latents: Tensor) -> Tensor:
        return functional.normalize(super().forward(unpack(latents).contiguous()), dim=-1)


def make(said: Options) -> None:
    """Train the critic on shipped dev's estimates and keep it among the checkpoints."""
    shelf = album.load(said)
    dev, words = folders.load_dev(said.models, fast=False), folders.load_text(said.models)
    critic = Critic().to(device())  # half a minute of training does not pay for compiling
    stage = Stage(
        "critic", {"critic": critic}, said, rate=RATE, seconds=SECONDS, ema=0.99, compact=True
    )
    size = 4 if said.smoke else BATCH
    for _ in stage:
        batch = shelf.draw(size)
        told = words(batch.clip_ids, batch.t5_ids)
        seen = estimate(dev, batch, told)
        likeness = (critic(seen) * shelf.faces[batch.rows]).sum(-1)
        stage.descend(1 - likeness.mean())
    stage.finish()
    if rank() == 0:
        save_half(critic, _path(said.checkpoints))


@torch.no_grad()
def estimate(dev: FluxTransformer2DModel, batch: album.Batch, told: Words) -> Tensor:
    """Dev's one-step x0 from noised pictures, a share of them left clean."""
    size = len(batch.rows)
    sigma = HIGHEST_SIGMA * torch.rand(size, device=device())
    x = noised(batch.clean, batch.noise, sigma)
    guess = x - sigma[:, None, None] * velocity(dev, x, sigma, told, torch.ones_like(sigma))
    clean = (torch.rand(size, device=device()) < CLEAN)[:, None, None]
    return torch.where(clean, batch.clean, guess)


def load(said: Options) -> Critic:
    """The trained critic, frozen."""
    path = _path(said.checkpoints)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `python -m pocket.critic` first")
    return load_half(Critic(), path)


def _path(checkpoints: Path) -> Path:
    return checkpoints / "critic.safetensors"


if __name__ == "__main__":
    make(options(__doc__))
