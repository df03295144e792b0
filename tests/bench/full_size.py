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
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from stepscope.hooks import Capture, record
from tests.bench.full_pipeline import Bench
from tests.bench.plain import copies, plain_hooks, without_kernel
from tests.bench.reading import reading

Ways = dict[str, Callable[[], AbstractContextManager[Any]]]
Say = Callable[[str, dict[str, Any]], None]


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
