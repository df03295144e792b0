"""Train IP-Adapters on frozen U-Nets: `python -m pocket.make --only style`, object, or face_id.

style     on sdxl, reads the image encoder, learns from another picture of the same look
object    on sd15, reads the image encoder, learns from another picture of the same hat
face_id   on sdxl, reads the conditioning encoder's face, learns from the person's portrait

Two losses: the base's own, on the noise; and, for looks and faces, how far the estimated picture's look or
face is from what it should be, read by critic.py. No adapter ever sees the few-step LoRA, nor a judge.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stepscope.pocket.muon import Muon, by_shape
from stepscope.pocket.process import Options, device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery, image_encoder, layout
from stepscope.pocket.unet.base import unsaid
from stepscope.pocket.unet.critic import READINGS, Critic
from stepscope.pocket.unet.diffusion import FAINT, TIMES, alphas, level, noised
from stepscope.pocket.unet.image_prompt_file import (
    PROMPTS,
    Early,
    Prompt,
    parts,
    read,
    start,
    write,
)
from stepscope.pocket.unet.reading import Text

SECONDS = 150.0
BATCH, RATE, MUON, PEOPLE = 384, 1e-3, 2.0, 10_000
# The noisy end of the 1000 times.
EARLY = 600
# Image prompts, and sentences, that are left out while training.
DROPPED_IMAGE, DROPPED = 0.08, 0.08
# The weight of the critic's distance falls over the schedule: first find the look or face, then paint well.
CRITIC_FROM, CRITIC_TO = 0.5, 0.15
CHECKS = 8


def make(said: Options, name: str) -> None:
    """Train (or go on training) and write the adapter's file."""
    prompt = PROMPTS[name]
    pictures = gallery.load(said, prompt.backbone, people=PEOPLE)
    frozen, words = layout.load(said.models, layout.LAYOUTS[prompt.backbone])
    unet: Any = frozen
    kept_file = prompt.file(said.models)
    unet._load_ip_adapter_weights([start(unet, prompt) if not said.onward else read(kept_file)])
    unet.to(device())
    own = parts(unet)
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    encoder = None if prompt.reads_faces else image_encoder.load(said.models)
    critic = Critic(said, prompt.shares) if prompt.shares in READINGS else None
    stage = Stage(
        name, {"own": own}, said, rate=RATE, seconds=SECONDS, ema=0.995, every=50, save_seconds=300
    )
    stage.optimiser = Muon(*by_shape(stage.parameters), RATE, ratio=MUON)
    size, kept = 4 if said.smoke else BATCH, alphas()
    strangers = gallery.paint(
        said.models, prompt.backbone, 6 if said.smoke else 600, gallery.HELD_OUT
    )
    checked = 0
    among = None if prompt.reads_faces else pictures.having(prompt.shares)
    for progress in stage:
        rows = pictures.draw(size, among)
        image = seen(pictures, rows, prompt, encoder)
        dropped = torch.rand(size, device=device()) < DROPPED_IMAGE
        image = torch.where(dropped[:, None], 0.0, image)
        clean = pictures.latents[rows].float()
        time, noise, alone = lesson(clean, prompt.early)
        with torch.no_grad():
            silent = torch.rand(size, device=device()) < DROPPED
            told = unsaid(words(pictures.sentence_ids(rows)), words.nothing(size), silent)
        x = torch.where(alone[:, None, None, None], noise, noised(clean, noise, kept[time]))
        found = layout.predicted(unet, x, time, told, image[:, None])
        error = (found - noise) ** 2
        if prompt.reads_faces:
            error = error * pictures.face_weight(rows)
        weights = level(kept[time], prompt.early.faint if prompt.early else FAINT) * ~alone
        loss = (error.mean((1, 2, 3)) * weights).mean()
        apart = loss.new_zeros(())
        if critic is not None:
            apart = (critic(x, found, time, pictures, rows) * ~dropped).mean()
        weight = CRITIC_FROM + progress * (CRITIC_TO - CRITIC_FROM)
        stage.descend(loss + weight * apart, noise=error.mean(), apart=apart)
        if rank() == 0 and progress > (checked + 1) / CHECKS:
            checked += 1
            print(
                f"{name} step {stage.step}: {told_apart(unet, words, strangers, prompt, encoder)}"
            )
    stage.finish()
    if rank() == 0:
        write(unet, kept_file, prompt)


def lesson(clean: Tensor, early: Early | None) -> tuple[Tensor, Tensor, Tensor]:
    """Times (b,), noise as `clean` is, and which rows are noise alone, (b,)."""
    size = len(clean)
    time, noise = torch.randint(TIMES, (size,), device=device()), torch.randn_like(clean)
    alone = torch.zeros(size, dtype=torch.bool, device=device())
    if early is None:
        return time, noise, alone
    chance = torch.rand(2, size, device=device())
    late = torch.randint(EARLY, TIMES, (size,), device=device())
    start = torch.randint(*early.start, (size,), device=device())
    alone = chance[1] < early.alone
    time = torch.where(alone, start, torch.where(chance[0] < early.share, late, time))
    constant = early.offset * torch.randn(*clean.shape[:2], 1, 1, device=device())
    return time, noise + constant * ~alone[:, None, None, None], alone


@torch.no_grad()
def told_apart(
    unet: Any,
    words: Text,
    strangers: gallery.Gallery,
    prompt: Prompt,
    encoder: nn.Module | None,
) -> str:
    """The error on pictures never trained on with their own reference, with another's, and with none."""
    generator = torch.Generator(device()).manual_seed(0)
    kept = alphas()
    rows = torch.arange(len(strangers), device=device())
    rows = rows if prompt.reads_faces else strangers.having(prompt.shares)
    size = min(BATCH, len(rows))
    sums = torch.zeros(3, device=device())
    parts = [part for part in rows.split(size) if len(part) == size]
    for part in parts:
        clean = strangers.latents[part].float()
        noise = torch.randn(clean.shape, generator=generator, device=device())
        time = torch.randint(300, TIMES, (size,), generator=generator, device=device())
        x, told = noised(clean, noise, kept[time]), words(strangers.ids[part, 1])
        own = seen(strangers, part, prompt, encoder)
        for i, image in enumerate((own, own.roll(size // 2, 0), torch.zeros_like(own))):
            found = layout.predicted(unet, x, time, told, image[:, None])
            error = ((found - noise) ** 2).mean((1, 2, 3)) * level(kept[time])
            sums[i] += error.mean() / len(parts)
    own, other, none = sums.tolist()
    return f"own reference {own:.4f}, another's {other:.4f}, none {none:.4f}"


@torch.no_grad()
def seen(
    pictures: gallery.Gallery, rows: Tensor, prompt: Prompt, encoder: nn.Module | None
) -> Tensor:
    """What the adapter reads of each row's reference: (b, 256), or faces (b, 512)."""
    if encoder is None:
        return pictures.portraits[rows // gallery.EACH]
    other = pictures.sharing(rows, prompt.shares)
    return image_encoder.embed(encoder, pictures.floats(other))
