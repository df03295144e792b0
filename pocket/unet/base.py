"""Train a U-Net and its text encoders from nothing: `python -m pocket.make --only sd15`, or sdxl."""

import torch

from stepscope.pocket.muon import Muon, split
from stepscope.pocket.process import Options, device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery, layout
from stepscope.pocket.unet.diffusion import TIMES, alphas, min_snr, noised
from stepscope.pocket.unet.reading import Words

SECONDS = 900.0
BATCH = 512
RATE, MUON, DECAY = 8e-4, 3.0, 0.02
DROPPED = 0.1


def make(said: Options, name: str) -> None:
    """Train (or go on training) and write the backbone's folder."""
    kind = layout.LAYOUTS[name]
    pictures = gallery.load(said, name)
    if said.onward:
        unet, words = layout.load(said.models, kind)
        unet.requires_grad_(True).train()
        words.requires_grad_(True).train()
    else:
        unet, words = layout.new_unet(kind), layout.new_text(kind)
    if device().type == "cuda":
        unet.compile()
    rate = RATE * 0.6 if said.onward else RATE
    stage = Stage(
        name,
        {"unet": unet, "text": words},
        said,
        rate=rate,
        seconds=SECONDS,
        ema=0.998,
        compact=True,
        every=100,
        save_seconds=200,
    )
    stage.optimiser = Muon(*split(stage.modules), rate, ratio=MUON, decay=DECAY)
    size, kept = 4 if said.smoke else BATCH, alphas()
    for _ in stage:
        rows = pictures.draw(size)
        clean = pictures.latents[rows].float()
        time = torch.randint(TIMES, (size,), device=device())
        noise = torch.randn_like(clean)
        read = words(pictures.sentence_ids(rows))
        dropped = torch.rand(size, device=device()) < DROPPED
        read = unsaid(read, words.nothing(size), dropped)
        found = layout.predicted(unet, noised(clean, noise, kept[time]), time, read)
        error = (found - noise) ** 2
        weighted = (error * pictures.face_weight(rows)).mean((1, 2, 3)) * min_snr(kept[time])
        stage.descend(weighted.mean(), noise=error.mean())
    stage.finish()
    if rank() == 0:
        layout.save(said.models, kind, unet, words)


def unsaid(read: Words, nothing: Words, rows: torch.Tensor) -> Words:
    """The words with nothing said in some rows (b,)."""
    tokens = torch.where(rows[:, None, None], nothing.tokens, read.tokens)
    if read.pooled is None or nothing.pooled is None:
        return Words(tokens, None)
    return Words(tokens, torch.where(rows[:, None], nothing.pooled, read.pooled))
