"""Distil a U-Net into four steps, as an LCM-LoRA: `python -m pocket.make --only sd15_lcm`, or sdxl_lcm.

A consistency function (Luo et al. 2023, arXiv 2310.04378): at each of LCM's four times the U-Net with the
LoRA learns where the base's own guided path from there ends. LCM learns it from one step of the base and an
average of itself; a base as small as this one can walk the whole path (DDIM), so no average is needed. Half
of the lessons after the first time lie on the student's own pictures. It never sees an adapter.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import LCMScheduler
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from stepscope.pocket.lessons import Lessons
from stepscope.pocket.process import Options, device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery, layout
from stepscope.pocket.unet.diffusion import alphas, clean_of, ddim, noised, times_below
from stepscope.pocket.unet.reading import Text, Words

SECONDS = 120.0
PEOPLE = 10_000
BATCH, RATE, RANK = 384, 1e-3, 12
GUIDANCE = 3.0
"""Classifier-free guidance of the base, here and where users run it."""
STEPS = 4
# Lessons are learnt from so often, and so many batches are kept at hand.
REUSE, KEPT = 4, 8
WALK = 6
OWN_FROM = 0.25
# What LCM-LoRAs of Stable Diffusion adapt.
TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip


def times() -> list[int]:
    """LCM's own four times, the noisiest first."""
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    scheduler: Any = LCMScheduler(**{name: layout.NOISE[name] for name in names})
    scheduler.set_timesteps(STEPS)
    return [int(time) for time in scheduler.timesteps]


def folder(models: Path, kind: layout.Layout) -> Path:
    """Where the LoRA ships."""
    return models / f"{kind.name}-lcm"


def make(said: Options, name: str) -> None:
    """Train and write the LoRA."""
    kind = layout.LAYOUTS[name]
    pictures = gallery.load(said, name, people=PEOPLE)
    base, words = layout.load(said.models, kind)
    student, _ = layout.load(said.models, kind)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS))
    student.add_adapter(config)
    if device().type == "cuda":
        base.compile()  # not the student: it sees two sizes of batch, with and without gradients
    own = nn.ParameterList(p for p in student.parameters() if p.requires_grad)
    stage = Stage(
        f"{name}_lcm", {"lora": own}, said, rate=RATE, seconds=SECONDS, ema=0.99, every=20
    )
    size = 4 if said.smoke else BATCH if device().type == "cuda" else BATCH // 16
    lessons = Lessons(size * KEPT)
    for progress in stage:
        if not len(lessons) or stage.step % REUSE == 0:
            walked = progress > OWN_FROM and stage.step % (2 * REUSE) == 0
            rows = pictures.draw(size)
            read = words(pictures.sentence_ids(rows))
            clean = pictures.latents[rows].float()
            lessons.add(*taught(base, words, clean, read, student if walked else None))
        x, time, wanted, tokens, *pooled = lessons.draw(size)
        read = Words(tokens, pooled[0] if pooled else None)
        found = guess(student, x, time, read)
        stage.descend(nn.functional.smooth_l1_loss(found, wanted, beta=0.5))
    stage.finish()
    if rank() == 0:
        lora = convert_state_dict_to_diffusers(get_peft_model_state_dict(student))
        half: dict[str, Any] = {k: v.half().cpu().contiguous() for k, v in lora.items()}
        layout.pipeline(kind).save_lora_weights(folder(said.models, kind), unet_lora_layers=half)


def guess(unet: Any, x: Tensor, time: Tensor, read: Words) -> Tensor:
    """The U-Net's estimate of x0."""
    return clean_of(x, layout.predicted(unet, x, time, read), alphas()[time])


@torch.no_grad()
def taught(
    base: Any, words: Text, clean: Tensor, read: Words, student: Any | None
) -> tuple[Tensor, ...]:
    """Lessons at every time: where one stands, the time, the end of the base's path, the words.

    One stands on pure noise first, then on noised pictures: renders, or the student's where one is given.
    """
    size = -(-len(clean) // STEPS)
    clean, read = clean[:size], read.rows(slice(0, size))
    nothing, kept = words.nothing(size), alphas()
    both = Words(
        torch.cat([read.tokens, nothing.tokens]),
        None
        if read.pooled is None or nothing.pooled is None
        else torch.cat([read.pooled, nothing.pooled]),
    )

    def guided(x: Tensor, time: Tensor) -> Tensor:
        passes = layout.predicted(base, torch.cat([x, x]), torch.cat([time, time]), both)
        conditional, unconditional = passes.chunk(2)
        return unconditional + GUIDANCE * (conditional - unconditional)

    stood, at, wanted = [], [], []
    for number, now in enumerate(times()):
        time = torch.full((size,), now, device=clean.device)
        noise = torch.randn_like(clean)
        x = noise if number == 0 else noised(clean, noise, kept[time])
        stood.append(x)
        at.append(time)
        wanted.append(ddim(guided, x, times_below(now, WALK)))
        if student is not None:
            clean = guess(student, x, time, read)
    pooled = () if read.pooled is None else (read.pooled.repeat(STEPS, 1),)
    repeated = (read.tokens.repeat(STEPS, 1, 1), *pooled)
    return torch.cat(stood), torch.cat(at), torch.cat(wanted), *repeated
