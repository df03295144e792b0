"""Measure the IP-Adapters on looks and hats never trained on: `python -m pocket.make --only unet_quality`.

Each reference is a render of a stranger; the picture asks for another prompt with other noise. The judge's
cosine of picture and reference, between its floor (the same pictures against another's reference) and its
ceiling (another render that shares the look, or hat). Pictures are made by diffusers' own pipelines.
Writes logs/unet_quality.json and figures/image_prompts_*.png.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from scipy.stats import bootstrap
from torch import Tensor

from stepscope.pocket.process import Options, device, rank
from stepscope.pocket.shipped import from_onnx
from stepscope.pocket.training import LOGS
from stepscope.pocket.unet import gallery, image_encoder, judges, layout
from stepscope.pocket.unet.image_prompt import PROMPTS, Prompt, read
from stepscope.probes.adapters.image_attention import each_its_own

COUNT, SEED = 16, gallery.HELD_OUT + 1
STEPS, GUIDANCE = 20, 3.0
SCALES = (0.0, 0.5, 1.0)
FIGURES = LOGS.parent / "figures"
# Rows and columns of a figure: reference, then a picture at each scale.
SHOWN = 8


@dataclass
class Row:
    """At one scale the judge's cosine with the reference, and the share of the way: each with its 95 %."""

    scale: float
    cosine: tuple[float, float, float]
    of_the_way: tuple[float, float, float]


def make(said: Options) -> None:
    """Measure every adapter that ships and reads pictures, on process 0."""
    if rank() != 0:
        return
    found = {
        name: measure(said, prompt)
        for name, prompt in PROMPTS.items()
        if not prompt.reads_faces and prompt.file(said.models).exists()
    }
    where = said.checkpoints if said.smoke else LOGS
    where.mkdir(parents=True, exist_ok=True)
    (where / "unet_quality.json").write_text(json.dumps(found, indent=1) + "\n")


@torch.no_grad()
def measure(said: Options, prompt: Prompt) -> dict[str, object]:
    """Floor, ceiling and each scale's Row of one adapter, as JSON holds them."""
    count = 2 if said.smoke else COUNT
    strangers = gallery.paint(said.models, prompt.backbone, 8 if said.smoke else 100, SEED)
    rows = strangers.having(prompt.shares)
    # One picture of each design: its second person's.
    rows = rows[rows % gallery.EACH == 1][:count]
    other = strangers.sharing(rows, prompt.shares)
    encoder = image_encoder.load(said.models)
    judge = from_onnx(judges.Judge(), judges.file(said.models, prompt.shares))
    wanted, shared = (judge(strangers.floats(part)) for part in (rows, other))
    ceiling = (wanted * shared).sum(1)
    image = image_encoder.embed(encoder, strangers.floats(rows))
    asked = rows.roll(len(rows) // 2)
    shown, told = [strangers.floats(rows)[:SHOWN]], {}
    pipe, ids = loaded(said.models, prompt), strangers.ids[asked, 1]
    steps = 2 if said.smoke else STEPS
    pictures = {scale: painted(pipe, ids, image, scale, steps) for scale in SCALES}
    none = (judge(pictures[0.0]) * wanted).sum(1)
    for scale, made in pictures.items():
        cosine = (judge(made) * wanted).sum(1)
        way = resampled([cosine, none, ceiling], lambda c, n, t: (c - n).mean() / (t - n).mean())
        told[str(scale)] = asdict(Row(scale, resampled([cosine], lambda c: c.mean()), way))
        shown.append(made[:SHOWN])
        print(f"{prompt.name} at {scale}: {told[str(scale)]}", flush=True)
    if not said.smoke:
        grid = rearrange(torch.stack(shown), "r n c h w -> (r h) (n w) c")
        Image.fromarray((grid * 255).byte().cpu().numpy()).save(
            FIGURES / f"image_prompts_{prompt.name}.png"
        )
    return {
        "floor": resampled([none], lambda n: n.mean()),
        "ceiling": resampled([ceiling], lambda c: c.mean()),
        "scales": told,
    }


def loaded(models: Path, prompt: Prompt) -> Any:
    """diffusers' own pipeline with the adapter."""
    kind = layout.LAYOUTS[prompt.backbone]
    pipe = layout.pipeline(kind).from_pretrained(models / kind.name)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet._load_ip_adapter_weights([read(prompt.file(models))])
    return pipe.to(device())


def painted(pipe: Any, ids: Tensor, image: Tensor, scale: float, steps: int) -> Tensor:
    """Pictures (n, 3, 128, 128) in [0, 1], a prompt and an image each."""
    pipe.set_ip_adapter_scale(scale)
    words = [pipe.tokenizer.decode(one, skip_special_tokens=True) for one in ids]
    parts = []
    for part in torch.arange(len(image)).split(8):
        own = image[part.to(image.device)][:, None]
        with each_its_own(pipe):  # diffusers' own argument mixes the pictures of a batch
            result = pipe(
                [words[i] for i in part],
                num_inference_steps=steps,
                guidance_scale=GUIDANCE,
                ip_adapter_image_embeds=[torch.cat([torch.zeros_like(own), own])],
                generator=torch.Generator().manual_seed(SEED + int(part[0])),
                output_type="pt",
            )
        parts.append(result.images)
    return torch.cat(parts)


def resampled(
    columns: Sequence[Tensor], statistic: Callable[..., np.floating]
) -> tuple[float, float, float]:
    """A statistic of paired columns and its 95 % percentile interval, by resampling references."""
    data = [column.double().cpu().numpy() for column in columns]
    found = bootstrap(
        data, statistic, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0
    ).confidence_interval
    return tuple(round(float(v), 4) for v in (statistic(*data), found.low, found.high))  # pyright: ignore[reportReturnType]
