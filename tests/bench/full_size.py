"""Overhead of recording a full-size FLUX on a GPU, with random weights: `python -m tests.bench.full_size`.

FLUX.1-dev's transformer (19 + 38 blocks, 11.9 B parameters, bfloat16) at 1024 x 1024 and 512 text
tokens, through diffusers' own FluxPipeline; the text encoders are left out (embeddings are given)
and the latents are not decoded, so that only the denoising loop is timed.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

from stepscope.hooks import Capture, record, verify
from tests.bench.narrow import small_vae


def build(layers: tuple[int, int], heads: int, device: str) -> Any:
    """A FluxPipeline around a random transformer, in bfloat16 on the device."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        transformer = FluxTransformer2DModel(
            num_layers=layers[0],
            num_single_layers=layers[1],
            num_attention_heads=heads,
            guidance_embeds=True,
        )
        vae = small_vae(channels=32, latents=16)
    torch.set_default_dtype(torch.float32)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts: Any = {
        "text_encoder": None,
        "tokenizer": None,
        "text_encoder_2": None,
        "tokenizer_2": None,
    }
    pipe = FluxPipeline(scheduler=scheduler, vae=vae, transformer=transformer, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, steps: int, side: int, device: str) -> torch.Tensor:
    """Latents after a run; waits for the device."""
    dtype = torch.bfloat16
    latents = pipe(
        prompt_embeds=torch.ones(1, 512, 4096, dtype=dtype, device=device),
        pooled_prompt_embeds=torch.ones(1, 768, dtype=dtype, device=device),
        num_inference_steps=steps,
        height=side,
        width=side,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    if device == "cuda":
        torch.cuda.synchronize()
    return latents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs=2, default=(19, 38))
    parser.add_argument("--heads", type=int, default=24, help="fewer for a smoke test")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    pipe = build(tuple(args.layers), args.heads, args.device)
    captures = {"off": None, "norms": Capture(), "tokens": Capture(level="tokens")}
    seconds: dict[str, list[float]] = {name: [] for name in captures}
    reference = call(pipe, args.steps, args.side, args.device)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name, capture in captures.items():
                start = time.perf_counter()
                if capture is None:
                    latents = call(pipe, args.steps, args.side, args.device)
                    seconds[name].append(time.perf_counter() - start)
                else:
                    with record(pipe, Path(folder) / f"{name}.zarr", capture):
                        start = time.perf_counter()
                        latents = call(pipe, args.steps, args.side, args.device)
                        seconds[name].append(time.perf_counter() - start)
                assert torch.equal(latents, reference), f"{name} changed the latents"
    off = statistics.median(seconds["off"])
    print(f"| capture | ms a step, median of {args.rounds} | least to most | over none |")
    print("|---|---|---|---|")
    for name, values in seconds.items():
        ms = [1000 * v / args.steps for v in values]
        share = statistics.median(values) / off - 1
        print(
            f"| {name} | {statistics.median(ms):.1f} | {min(ms):.1f} to {max(ms):.1f} | {share:+.2%} |"
        )
    print()
    for finding in verify(
        pipe, lambda: call(pipe, 2, args.side, args.device).float().cpu().numpy()
    ):
        print("ok   " if finding.holds else "FAILS", f"{finding.claim}: {finding.detail}")


if __name__ == "__main__":
    main()
