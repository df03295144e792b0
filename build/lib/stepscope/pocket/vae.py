"""The autoencoder of both backbones, flux-dev/vae: 128 x 128 RGB to 16 channels of 32 x 32.

    python -m pocket.vae [--smoke]

Expect 5,470 steps of 128 in 220 s on an H200 (5 minutes with rendering, compiling and measuring),
loss 1.5 -> .032. On 512 people never trained on: PSNR 37.8 dB, photos 39.2, worst 33.5.
Its latents are normalised by the scaling_factor and shift_factor of its config, as FLUX's are.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from stepscope.pocket.crowd import SEEDS, photographed
from stepscope.pocket.process import autocast, compiled, device, on_device, options
from stepscope.pocket.training import Stage
from stepscope.pocket.world import SIZE, sample_identities

SECONDS = 220
PEOPLE, BATCH = 30000, 128
RATE = 1.2e-3
KL = 3e-4
# Noise on the latents while training: the decoder forgives a flow model's small errors.
LATENT_NOISE = 0.1


def autoencoder() -> AutoencoderKL:
    """An untrained one: f4, no attention, no quant convolutions."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        block_out_channels=(32, 64, 96),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=16,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def load_vae(folder: Path) -> AutoencoderKL:
    """The trained one, in float32, frozen, on the current device."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    return on_device(vae).eval().requires_grad_(False)


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def decibels(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal to noise of each picture in [-1, 1], (n,)."""
    return -10 * ((x - y).square() / 4).mean((1, 2, 3)).log10()


def main() -> None:
    said = options(__doc__)
    people, batch = (4, 2) if said.smoke else (PEOPLE, BATCH)
    crowd = photographed(sample_identities(people, SEEDS["vae"]), 1, SEEDS["vae"])
    vae = on_device(autoencoder())
    encode, decode = compiled(vae.encoder), compiled(vae.decoder)
    stage = Stage(
        "vae",
        {"vae": vae},
        said,
        seconds=SECONDS,
        rate=RATE,
        ema=0.999,
        betas=(0.9, 0.99),
        decay=0.0,
        every=100,
    )
    for _ in stage:
        rows = torch.randint(len(crowd), (batch,), device=device())
        x = crowd.floats(rows) * 2 - 1
        x = (x.flip(-1) if stage.step % 2 else x).contiguous(memory_format=torch.channels_last)
        with autocast():
            mean, log_variance = encode(x).float().chunk(2, 1)
            log_variance = log_variance.clamp(-20, 10)
            spread = (log_variance.exp() + LATENT_NOISE**2).sqrt()
            y = decode(mean + spread * torch.randn_like(mean)).float()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        squares = (y - x).square().mean()
        contours = torch.stack(
            [(a - b).abs().mean() for a, b in zip(edges(y), edges(x), strict=True)]
        )
        loss = (y - x).abs().mean() + 2 * squares + 0.5 * contours.sum() + KL * kl
        stage.descend(loss, kl=kl, decibels=-10 * (squares.detach() / 4).log10())
    stage.finish()
    keep(vae.eval(), said.models / "flux-dev" / "vae", smoke=said.smoke)


@torch.no_grad()
def keep(vae: AutoencoderKL, folder: Path, *, smoke: bool) -> None:
    """Measure on people never trained on; write the config with its normalisation, and weights."""
    test = photographed(sample_identities(2 if smoke else 512, SEEDS["held_out"]), 1, 2)
    x = test.floats(slice(None)) * 2 - 1
    parts = [vae.encoder(p).chunk(2, 1)[0] for p in x.split(64)]
    y = torch.cat([vae.decoder(p).clamp(-1, 1) for p in parts])
    latents, photo = torch.cat(parts), test.attributes[:, -2] == 0
    quality = decibels(x, y)
    print(
        f"PSNR {quality.mean():.2f} dB, photos {quality[photo].mean():.2f} dB, worst {quality.min():.2f} dB"
    )
    print(
        "latent std by channel", [round(v, 2) for v in latents.std((0, 2, 3)).tolist()], flush=True
    )
    vae.register_to_config(
        scaling_factor=round(1 / float(latents.std()), 4),
        shift_factor=round(float(latents.mean()), 4),
    )
    vae.half().save_pretrained(folder)


if __name__ == "__main__":
    main()
