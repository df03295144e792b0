"""Peak memory of `decode` against the number of samples: `python -m tests.bench.decoding` (a minute).

In a fresh process that has decoded a run of two samples before: what is told is by how much the peak
rises above that. Images of all samples together, as they lie in the run, stand beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from stepscope.analysis.measure import FRAMES, Settings, measure_all
from stepscope.hooks.vocabulary import SCHEMA_VERSION
from tests.bench.marks import put
from tests.bench.memory import high_water
from tests.bench.narrow import small_vae

STEPS, LATENT, CHANNELS = 32, 16, 4
SIDE = 8 * LATENT
CASES = (2, 8, 24, 72)
"""Samples."""
MB_A_SAMPLE = STEPS * SIDE * SIDE * 3 / 2**20
"""Of decoded images, uint8."""


ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
}
"""glibc hands freed blocks back at once: what is in use is measured, not what it keeps (some 50 MB)."""


def rises(cases: Sequence[int]) -> list[float]:
    """MB by which the peak rises when runs of so many samples are decoded, after one of two."""
    with tempfile.TemporaryDirectory() as folder:
        vae, found = Path(folder) / "vae", []
        small_vae(8, CHANNELS).save_pretrained(vae)
        for k, samples in enumerate((2, *cases)):
            path = run(Path(folder) / f"{k}.zarr", samples, vae)
            before = high_water(fresh=True)
            measure_all([path], ["decode"], Settings(vae=str(vae), device="cpu"))
            found.append(high_water() - before)
        return found[1:]


def run(path: Path, samples: int, vae: Path) -> Path:
    """A run of noise that has what `decode` reads, written a sample at a time, without images."""
    rng, axes = np.random.default_rng(0), ("channel", "y", "x")
    shape = (CHANNELS, LATENT, LATENT)
    sizes = {"x0": (("sample", "step", *axes), (samples, STEPS, *shape)),
             "final_latents": (("sample", *axes), (samples, *shape))}  # fmt: skip
    empty = {n: (d, np.broadcast_to(np.float32(np.nan), s)) for n, (d, s) in sizes.items()}
    about = {
        "schema_version": SCHEMA_VERSION,
        "dtype": "float32",
        "vae": json.loads((vae / "config.json").read_text()),
    }
    whole = xr.Dataset(
        {**empty, "done": (("sample",), np.ones(samples, bool))},
        {"sample": np.arange(samples), "step": np.arange(STEPS)},
        about,
    )
    chunks = {name: {"chunks": (1, *shape[1:])} for name, (_, shape) in sizes.items()}
    whole.to_zarr(path, encoding=chunks, consolidated=True, write_empty_chunks=True)
    for i in range(samples):
        one = {
            name: (dims, rng.standard_normal((1, *shape[1:]), np.float32))
            for name, (dims, shape) in sizes.items()
        }
        xr.Dataset(one).to_zarr(path, region={"sample": slice(i, i + 1)}, consolidated=False)
    return path


def in_child(cases: Sequence[int]) -> list[float]:
    """`rises` in a process of its own, with one thread (Linux with glibc)."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from tests.bench.decoding import rises\n"
        f"print(rises({list(cases)}))"
    )
    command, env = [sys.executable, "-c", code], {**os.environ, **ALLOCATOR}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def table() -> str:
    """Markdown."""
    lines = [
        f"{STEPS} steps of {SIDE} x {SIDE} pixels, at most {FRAMES} images at once.",
        "",
        "| samples | their images, MB | peak rises by, MB |",
        "|---|---|---|",
    ]
    for n, risen in zip(CASES, in_child(CASES), strict=True):
        lines.append(f"| {n} | {n * MB_A_SAMPLE:.1f} | {risen:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="also put the table between a file's marks")
    words = parser.parse_args()
    found = table()
    print(found)
    if words.into is not None:
        put(words.into, "decoding", found)


if __name__ == "__main__":
    main()
