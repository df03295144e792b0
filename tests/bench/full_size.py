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
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetPipeline, FluxPipeline
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from PIL import Image

from stepscope.hooks import Capture, kernel, record
from stepscope.probes.adapters.infusenet_network import InfuseNet
from tests.bench.narrow import small_vae
from tests.bench.reading import reading

FULL = ("double.05", "double.15", "single.10", "single.30")
Ways = dict[str, Callable[[], AbstractContextManager[Any]]]
Say = Callable[[str, dict[str, Any]], None]


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


def timed(bench: Bench, ways: Ways, rounds: int, say: Say, *, exact: bool) -> None:
    """Every way in turn; exact: the latents must be those of the first way, bit for bit.

    A way that fails is told, and the others go on.
    """
    steps: dict[str, list[float]] = {name: [] for name in ways}
    calls: dict[str, list[float]] = {name: [] for name in ways}
    leaving: dict[str, list[float]] = {name: [] for name in ways}
    names, reference = list(ways), None
    off = names[0]
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            try:
                with ways[name]():
                    bench.wait()
                    start = time.perf_counter()
                    latents, each = bench.call()
                    whole, left = time.perf_counter() - start, time.perf_counter()
            except Exception as error:
                say(f"{name} failed", {f"{type(error).__name__}: {error}"[:900]: 0.0})
                names.remove(name)
                break
            leaving[name].append(time.perf_counter() - left)
            calls[name].append(1e3 * whole / bench.steps)
            steps[name].append(statistics.median(each))
            reference = latents if reference is None else reference
            if exact and not torch.equal(latents, reference):
                raise AssertionError(f"{name} changed the latents")
        for name in names:
            if turn < rounds - 1 or not steps[name]:
                continue
            over = [a / b - 1 for a, b in zip(steps[name], steps[off], strict=False)]
            least = min(steps[name]) / min(steps[off]) - 1
            say(
                name,
                {
                    "ms a step": statistics.median(steps[name]),
                    "least": min(steps[name]),
                    "% over off, median of rounds": 100 * statistics.median(over),
                    "% over off, least": 100 * least,
                    "ms a step with beginning and end": statistics.median(calls[name]),
                    "seconds to leave": statistics.median(leaving[name]),
                },
            )


def compiled(bench: Bench, ways: Ways, args: argparse.Namespace, say: Say, folder: Path) -> None:
    """Compile, and record: what was compiled without recording is compiled once more with it."""
    torch._dynamo.config.recompile_limit = 64  # pyright: ignore  # of all networks together
    with record(bench.pipe, folder / "eager.zarr"):
        bench.call()
    for network in (bench.transformer, bench.network):
        blocks = [*network.transformer_blocks, *network.single_transformer_blocks]
        for module in [network] if args.whole else blocks:
            module.compile(fullgraph=True, mode=args.mode)
    for name, way in ways.items():
        start = time.perf_counter()
        with way():
            bench.call()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        say(f"{name}, first call", {"s": time.perf_counter() - start, "graphs so far": graphs})
    with record(bench.pipe, folder / "compiled.zarr"):
        bench.call()
    with (
        xr.open_zarr(folder / "eager.zarr") as eager,
        xr.open_zarr(folder / "compiled.zarr") as run,
    ):
        for name in ("attention_norm", "residual_norm", "residual_norm_without_massive"):
            want, have = eager[name].values, run[name].values
            same = bool((np.isfinite(want) == np.isfinite(have)).all())
            apart = float(np.nanmax(np.abs(have / want - 1)))
            say(
                f"{name}, beside eager", {"largest relative difference": apart, "same places": same}
            )
    timed(bench, ways, args.rounds, say, exact=False)


PARTS = ("reading", "eager", "skip", "compiled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs=2, default=(19, 38))
    parser.add_argument("--adapter", type=int, nargs=2, default=(4, 10))
    parser.add_argument("--heads", type=int, default=24, help="fewer for a smoke test")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
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

    def say(part: str) -> Say:
        def told(name: str, numbers: dict[str, Any]) -> None:
            found.setdefault(part, {})[name] = numbers
            words = ", ".join(f"{word} {value:.4g}" for word, value in numbers.items())
            print(f"{time.perf_counter() - start:6.1f} s | {part} | {name} | {words}", flush=True)
            if args.json:
                args.json.write_text(json.dumps(found, indent=1))

        return told

    bench = Bench(args)
    failed = []
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        folder, count = Path(temporary), iter(range(10**6))

        def recorded(capture: Capture) -> AbstractContextManager[Any]:
            return record(bench.pipe, folder / f"{next(count)}.zarr", capture)

        ways: Ways = {
            "off": nullcontext,
            "norms": lambda: recorded(Capture()),
            "tokens": lambda: recorded(Capture(level="tokens")),
            "full, 4 blocks": lambda: recorded(bench.full),
        }
        others: Ways = {
            "plain hooks, on the device": lambda: plain_hooks(bench),
            "norms without the kernel": lambda: without_kernel(recorded(Capture())),
            "synchronous copies, 4 blocks": lambda: copies(bench),
        }
        work: dict[str, Callable[[Say], None]] = {
            "reading": lambda say: say(
                "bytes of the norms", reading(bench.transformer, args.side, args.device)
            ),
            "eager": lambda say: timed(bench, ways | others, args.rounds, say, exact=True),
            "compiled": lambda say: compiled(bench, ways, args, say, folder),
            "skip": lambda say: skip(bench, say),
        }
        bench.call()
        for part in args.parts:
            try:
                work[part](say(part))
            except Exception:
                traceback.print_exc()
                failed.append(part)
    if args.device == "cuda":
        say("memory")("peak", {"GiB": torch.cuda.max_memory_allocated() / 2**30})
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


def skip(bench: Bench, say: Say) -> None:
    """A step in which InfuseNet is gated off, beside one of the transformer alone."""
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "the transformer alone": (bench.alone, {}),
        "InfuseNet gated off": (bench.pipe, {"controlnet_conditioning_scale": 0.0}),
        "InfuseNet on": (bench.pipe, {}),
    }
    each: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(3):
        for name, (pipe, more) in kinds.items():
            each[name] += bench.call(pipe, **more)[1]
    for name, ms in each.items():
        say(name, {"ms a step": statistics.median(ms), "least": min(ms)})


if __name__ == "__main__":
    main()
