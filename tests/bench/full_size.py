"""What recording costs at full size on a GPU, with random weights: `python -m tests.bench.full_size`.

FLUX.1-dev's transformer (19 + 38 blocks, 11.9 B parameters) and InfuseNet (4 + 10, 2.95 B), in bfloat16, at
1024 x 1024 and 512 text tokens, through diffusers' own FluxControlNetPipeline. The text encoders are left
out (embeddings are given), and the latents are not decoded. Nothing is downloaded. Ways of recording take
turns, and their order is reversed in every other round; each asserts that it changed no bit.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from PIL import Image

from stepscope.hooks import Capture, kernel, record
from stepscope.probes.adapters.infusenet_network import InfuseNet
from tests.bench.narrow import small_vae
from tests.bench.reading import reading

FULL = ("double.05", "double.15", "single.10", "single.30")
Ways = dict[str, Callable[[], AbstractContextManager[Any]]]


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
            if self.device == "cuda":
                ends.append(torch.cuda.Event(enable_timing=True))
                ends[-1].record()
            else:
                ends.append(time.perf_counter())
            return {}

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


@contextmanager
def plain_hooks(bench: Bench) -> Iterator[None]:
    """Norms by hooks that keep them on the device: what one writes oneself."""
    kept: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        for part in output if isinstance(output, tuple) else (output,):
            kept.append(torch.linalg.vector_norm(part, dtype=torch.float32))

    blocks = [*bench.transformer.transformer_blocks, *bench.transformer.single_transformer_blocks]
    handles = [m.register_forward_hook(hook) for b in blocks for m in (b, b.attn)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def copies(bench: Bench) -> Iterator[None]:
    """The tensors of `full` by hooks that copy them to the host at once, and keep them there."""
    kept: list[Any] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        kept.extend(p.cpu() for p in (output if isinstance(output, tuple) else (output,)))

    names = [site.rsplit(".", 2)[0] for site in bench.full.sites]
    lists = {
        "double": bench.transformer.transformer_blocks,
        "single": bench.transformer.single_transformer_blocks,
    }
    modules = [lists[kind][int(index)].attn for kind, index in (n.split(".") for n in names)]
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def without_kernel(inside: AbstractContextManager[Any]) -> Iterator[None]:
    usable, kernel.usable = kernel.usable, lambda device: False
    try:
        with inside:
            yield
    finally:
        kernel.usable = usable


def timed(bench: Bench, ways: Ways, rounds: int, say: Callable[..., None], *, exact: bool) -> None:
    """Every way in turn; exact: the latents must be those of the first way, bit for bit."""
    steps: dict[str, list[float]] = {name: [] for name in ways}
    calls: dict[str, list[float]] = {name: [] for name in ways}
    leaving: dict[str, list[float]] = {name: [] for name in ways}
    names, reference = list(ways), None
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            with ways[name]():
                bench.wait()
                start = time.perf_counter()
                latents, each = bench.call()
                calls[name].append(1e3 * (time.perf_counter() - start) / bench.steps)
                left = time.perf_counter()
            leaving[name].append(time.perf_counter() - left)
            steps[name].append(statistics.median(each))
            reference = latents if reference is None else reference
            if exact and not torch.equal(latents, reference):
                raise AssertionError(f"{name} changed the latents")
    off = names[0]
    for name in names:
        over = [a / b - 1 for a, b in zip(steps[name], steps[off], strict=True)]
        say(
            name,
            {
                "ms a step": statistics.median(steps[name]),
                "least": min(steps[name]),
                "over off, median of rounds": 100 * statistics.median(over),
                "over off, least": 100 * (min(steps[name]) / min(steps[off]) - 1),
                "ms a step with beginning and end": statistics.median(calls[name]),
                "seconds to leave": statistics.median(leaving[name]),
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs=2, default=(19, 38))
    parser.add_argument("--adapter", type=int, nargs=2, default=(4, 10))
    parser.add_argument("--heads", type=int, default=24, help="fewer for a smoke test")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", default=["reading", "eager", "skip", "compiled"])
    parser.add_argument("--mode", default=None, help="of torch.compile")
    parser.add_argument(
        "--whole", action="store_true", help="compile the networks, not their blocks"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here, as they are made")
    args = parser.parse_args()
    found: dict[str, Any] = {"torch": torch.__version__, "device": args.device}
    if args.device == "cuda":
        found["device"] = torch.cuda.get_device_name()
    start = time.perf_counter()

    def say(part: str) -> Callable[..., None]:
        def told(name: str, numbers: dict[str, float]) -> None:
            found.setdefault(part, {})[name] = numbers
            words = ", ".join(f"{value:.4g} {word}" for word, value in numbers.items())
            print(f"{time.perf_counter() - start:6.1f} s | {part} | {name} | {words}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))

        return told

    bench = Bench(args)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        count = iter(range(10**6))

        def recorded(capture: Capture) -> AbstractContextManager[Any]:
            return record(bench.pipe, Path(folder) / f"{next(count)}.zarr", capture)

        ways: Ways = {
            "off": nullcontext,
            "norms": lambda: recorded(Capture()),
            "tokens": lambda: recorded(Capture(level="tokens")),
            "full, 4 blocks": lambda: recorded(bench.full),
        }
        if "reading" in args.parts:
            say("reading")("of the bytes", reading(bench.transformer, args.side, args.device))
        if "eager" in args.parts:
            more: Ways = {
                "plain hooks, on the device": lambda: plain_hooks(bench),
                "norms without the kernel": lambda: without_kernel(recorded(Capture())),
                "synchronous copies, 4 blocks": lambda: copies(bench),
            }
            bench.call()
            timed(bench, ways | more, args.rounds, say("eager"), exact=True)
        if "skip" in args.parts:
            for name, pipe, scale in (
                ("the transformer alone", bench.alone, {}),
                ("InfuseNet gated off", None, {"controlnet_conditioning_scale": 0.0}),
                ("InfuseNet on", None, {}),
            ):
                each = [m for _ in range(3) for m in bench.call(pipe, **scale)[1]]
                say("skip")(name, {"ms a step": statistics.median(each), "least": min(each)})
        if "compiled" in args.parts:
            compiled(bench, ways, args, say("compiled"))
    if args.device == "cuda":
        say("memory")("peak", {"GiB": torch.cuda.max_memory_allocated() / 2**30})


def compiled(bench: Bench, ways: Ways, args: argparse.Namespace, say: Callable[..., None]) -> None:
    """Compile, and record: what is compiled anew under recording is compiled once."""
    for network in (bench.transformer, bench.network):
        blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
        for module in [network] if args.whole else blocks:
            module.compile(fullgraph=True, mode=args.mode)
    for name, way in ways.items():
        start = time.perf_counter()
        with way():
            bench.call()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        say(
            f"{name}, first call", {"seconds": time.perf_counter() - start, "graphs so far": graphs}
        )
    timed(bench, ways, args.rounds, say, exact=False)


if __name__ == "__main__":
    main()
