"""Seconds an image on the CPU through diffusers' own pipelines: `python -m pocket.speed`.

Writes logs/speed.json. InfuseNet's part is measured as the pipelines run it, one call a step.
"""

import json
import os
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import FluxPipeline

from stepscope.pocket import album, folders, report
from stepscope.pocket.flow import TEXT_TOKENS, noise
from stepscope.pocket.process import MODELS
from stepscope.pocket.sampling import (
    DEV_SCHEDULER,
    DEV_STEPS,
    SCHNELL_SCHEDULER,
    SCHNELL_STEPS,
    USER_GUIDANCE,
    Adapter,
    sample,
    sigmas,
)
from stepscope.pocket.training import LOGS
from stepscope.pocket.world import SIZE

PROMPT = "portrait photo of a person smiling at the beach wearing a yellow hoodie with glasses"
REPEATS, BATCH = 3, 4


def main() -> None:
    if torch.cuda.is_available():
        raise SystemExit("this measures a CPU: hide the GPU with CUDA_VISIBLE_DEVICES=")
    dev, schnell = folders.load_dev(MODELS), folders.load_schnell(MODELS)
    words, vae = folders.load_text(MODELS), folders.load_vae(MODELS)
    net, projection = folders.load_adapter(MODELS, dev)
    rows = {}
    for name, model, steps, guidance, schedule in (
        ("dev-28", dev, DEV_STEPS, USER_GUIDANCE, DEV_SCHEDULER),
        ("schnell-4", schnell, SCHNELL_STEPS, None, SCHNELL_SCHEDULER),
    ):
        pipe = FluxPipeline.from_pretrained(
            MODELS / (folders.DEV if guidance else folders.SCHNELL), dtype=torch.float32
        )
        pipe.set_progress_bar_config(disable=True)
        rows[name] = [_timed(lambda n, p=pipe, s=steps: _draw(p, s, n), n) for n in (1, BATCH)]

        def adapted(n: int, model=model, steps=steps, guidance=guidance, schedule=schedule) -> None:
            told = words(*album.tokens([PROMPT] * n))
            identity = projection(torch.randn(n, 1, 512))
            adapter = Adapter(net, identity, album.black(vae))
            levels = sigmas(schedule, steps)
            album.decode(vae, sample(model, noise(n, 0), told, levels, guidance, adapter))

        rows[f"{name} + adapter"] = [_timed(adapted, n) for n in (1, BATCH)]
    told = {"cores": os.cpu_count(), "rows": rows}
    (LOGS / "speed.json").write_text(json.dumps(told, indent=1) + "\n")
    report.write()


def _draw(pipe: FluxPipeline, steps: int, count: int) -> None:
    pipe(
        [PROMPT] * count,
        num_inference_steps=steps,
        guidance_scale=USER_GUIDANCE,
        height=SIZE,
        width=SIZE,
        max_sequence_length=TEXT_TOKENS,
    )


@torch.no_grad()
def _timed(draw: Callable[[int], None], count: int) -> float:
    """Seconds an image: the median of REPEATS after one to warm up."""
    draw(count)
    spent = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        draw(count)
        spent.append((time.perf_counter() - begun) / count)
    return statistics.median(spent)


if __name__ == "__main__":
    main()
