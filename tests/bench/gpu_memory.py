"""GPU memory of recording FLUX.1 with InfuseNet, by setting: `python -m tests.bench.gpu_memory`.

Random weights of FLUX.1-dev's transformer (11.9 B parameters), InfuseNet (2.95 B), T5-XXL's encoder (4.7 B)
and the VAE, in bfloat16. Prompts are given as embeddings, so that the text encoder takes its place and does
no work. The peak is torch's, from the pipeline's loading to the returned image.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxControlNetPipeline,
    FluxTransformer2DModel,
)
from diffusers.hooks import apply_group_offloading
from transformers import T5Config, T5EncoderModel

from stepscope.hooks import record

NETWORKS = ("transformer", "controlnet", "text_encoder_2")


def build(*, tiny: bool) -> Any:
    """The pipeline, on the CPU."""
    torch.manual_seed(0)
    heads, layers, single = (2, (2, 1), (2, 1)) if tiny else (24, (19, 4), (38, 10))
    more: dict[str, Any] = {"num_attention_heads": heads, "guidance_embeds": True}
    width: dict[str, Any] = {"d_model": 64, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    full: dict[str, Any] = {
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
    }
    text = T5Config(**(width if tiny else full), feed_forward_proj="gated-gelu")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(
        "cuda" if torch.cuda.is_available() else "cpu"
    ):  # random numbers are made faster there
        parts: dict[str, Any] = {
            "transformer": FluxTransformer2DModel(
                num_layers=layers[0], num_single_layers=single[0], **more
            ),
            "controlnet": FluxControlNetModel(
                num_layers=layers[1], num_single_layers=single[1], **more
            ),
            "text_encoder_2": T5EncoderModel(text).eval(),
            "vae": vae(tiny=tiny),
        }
    torch.set_default_dtype(torch.float32)
    pipe = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        text_encoder=None,  # pyright: ignore[reportArgumentType]
        tokenizer=None,  # pyright: ignore[reportArgumentType]
        tokenizer_2=None,  # pyright: ignore[reportArgumentType]
        **parts,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cpu")
    return pipe


def vae(*, tiny: bool) -> AutoencoderKL:
    """FLUX.1's autoencoder."""
    blocks: Any = (("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4)
    channels: Any = (8, 8, 8, 8) if tiny else (128, 256, 512, 512)
    return AutoencoderKL(
        down_block_types=blocks[0],
        up_block_types=blocks[1],
        block_out_channels=channels,
        layers_per_block=2,
        latent_channels=16,
        norm_num_groups=4 if tiny else 32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1159,
        scaling_factor=0.3611,
    )


def on_the_card(pipe: Any) -> None:
    pipe.to("cuda")


def model_offload(pipe: Any) -> None:
    pipe.enable_model_cpu_offload()


def float8(pipe: Any) -> None:
    for name in ("transformer", "controlnet"):
        network = getattr(pipe, name)
        network.enable_layerwise_casting(
            storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16
        )


def float8_model_offload(pipe: Any) -> None:
    float8(pipe)
    pipe.enable_model_cpu_offload()


def group_offload(pipe: Any) -> None:
    for name in NETWORKS:
        apply_group_offloading(
            getattr(pipe, name),
            onload_device=torch.device("cuda"),
            offload_type="block_level",
            num_blocks_per_group=1,
            use_stream=True,
        )
    pipe.vae.to("cuda")


def sequential_offload(pipe: Any) -> None:
    pipe.enable_sequential_cpu_offload()


SETTINGS: dict[str, Callable[[Any], None]] = {
    "all on the card": on_the_card,
    "`pipe.enable_model_cpu_offload()`": model_offload,
    "the same, transformer and InfuseNet cast to float8 by layer": float8_model_offload,
    "`apply_group_offloading`, by block, with a stream": group_offload,
    "`pipe.enable_sequential_cpu_offload()`": sequential_offload,
}


def call(pipe: Any, steps: int, side: int, device: str) -> None:
    like = {"dtype": torch.bfloat16, "device": device}
    pipe(
        prompt_embeds=torch.ones(1, 256, pipe.transformer.config.joint_attention_dim, **like),
        pooled_prompt_embeds=torch.ones(1, pipe.transformer.config.pooled_projection_dim, **like),
        control_image=torch.zeros(1, 3, side, side, **like),
        num_inference_steps=steps,
        height=side,
        width=side,
        generator=torch.Generator().manual_seed(0),
    )


def measured(prepare: Callable[[Any], None], steps: int, side: int, *, tiny: bool) -> list[float]:
    """Peak in GB without and with recording, and ms a step with it."""
    pipe, found = build(tiny=tiny), []
    card = torch.cuda.is_available()
    gc.collect()
    if card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        prepare(pipe)
    device = "cuda" if card else "cpu"
    call(pipe, steps, side, device)
    found.append(torch.cuda.max_memory_allocated() / 1e9 if card else 0.0)
    with tempfile.TemporaryDirectory() as folder, record(pipe, f"{folder}/run.zarr"):
        call(pipe, steps, side, device)
        start = time.perf_counter()
        call(pipe, steps, side, device)
        seconds = time.perf_counter() - start
    found.append(torch.cuda.max_memory_allocated() / 1e9 if card else 0.0)
    return [*found, 1e3 * seconds / steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--tiny", action="store_true", help="a smoke test")
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no card"
    print(
        f"{name}, {args.side} x {args.side}, {args.steps} steps, a call's seconds over its steps\n"
    )
    print(
        "| setting | peak without recording, GB | with, GB | ms a step |\n|---|---|---|---|",
        flush=True,
    )
    for words, prepare in SETTINGS.items():
        try:
            without, recorded, pace = measured(prepare, args.steps, args.side, tiny=args.tiny)
            print(f"| {words} | {without:.1f} | {recorded:.1f} | {pace:.0f} |", flush=True)
        except Exception as error:  # the next setting may do
            print(f"| {words} | {type(error).__name__}: {str(error)[:120]} | | |", flush=True)


if __name__ == "__main__":
    main()
