"""FLUX.1 with InfuseNet at full size, with random weights, and its calls on the device's own clock."""

import argparse
import time
from itertools import pairwise
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from PIL import Image

from stepscope.hooks import Capture
from stepscope.probes.adapters.infusenet_network import InfuseNet
from tests.bench.narrow import small_vae

FULL = ("double.05", "double.15", "single.10", "single.30")
"""Blocks whose attentions are kept whole."""


class Bench:
    """The pipeline, and how it is called."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device, self.side, self.steps = args.device, args.side, args.steps
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        more: dict[str, Any] = {"num_attention_heads": args.heads, "guidance_embeds": True}
        with torch.device(self.device):
            self.transformer = FluxTransformer2DModel(
                num_layers=args.layers[0], num_single_layers=args.layers[1], **more
            )
            self.network = InfuseNet(
                num_layers=args.adapter[0], num_single_layers=args.adapter[1], **more
            )
            vae = small_vae(channels=32, latents=16)
            self.network.identity = torch.randn(1, 8, 4096)
        torch.set_default_dtype(torch.float32)
        for network, spread in ((self.transformer, 0.02), (self.network, 0.01)):
            for weight in network.parameters():
                if weight.ndim > 1:
                    torch.nn.init.normal_(weight, std=spread)
        vae.register_to_config(shift_factor=0.1)
        parts: Any = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        parts |= {"vae": vae, "transformer": self.transformer}
        parts["scheduler"] = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        self.pipe = FluxControlNetPipeline(controlnet=self.network, **parts)
        self.alone = FluxPipeline(**parts)
        for pipe in (self.pipe, self.alone):
            pipe.set_progress_bar_config(disable=True)
        sites = [block for block in FULL if _has(block, args.layers)] or ["double.00"]
        self.full = Capture(level="full", sites=tuple(f"{block}.attention.*" for block in sites))

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def call(self, pipe: Any = None, **more: Any) -> tuple[torch.Tensor, list[float]]:
        """The latents, and milliseconds of each step but the first."""
        ends: list[Any] = []

        def tell(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            torch.compiler.cudagraph_mark_step_begin()  # of two networks, each with CUDA graphs
            if self.device == "cuda":
                ends.append(torch.cuda.Event(enable_timing=True))
                ends[-1].record()
            else:
                ends.append(time.perf_counter())
            return {}

        torch.compiler.cudagraph_mark_step_begin()
        pipe = self.pipe if pipe is None else pipe
        if pipe is self.pipe:
            more["control_image"] = Image.new("RGB", (self.side, self.side))
        embeds = {"dtype": torch.bfloat16, "device": self.device}
        latents = pipe(
            prompt_embeds=torch.ones(1, 512, 4096, **embeds),
            pooled_prompt_embeds=torch.ones(1, 768, **embeds),
            num_inference_steps=self.steps,
            height=self.side,
            width=self.side,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            callback_on_step_end=tell,
            **more,
        ).images
        self.wait()
        pairs = pairwise(ends)
        if self.device == "cuda":
            return latents, [first.elapsed_time(last) for first, last in pairs]
        return latents, [1e3 * (last - first) for first, last in pairs]


def _has(block: str, layers: tuple[int, int]) -> bool:
    kind, index = block.split(".")
    return int(index) < layers[kind == "single"]
