"""Bytes and seconds to write and to read a variable, by codec: why `hooks.blank` has the one it has.

Written through Zarr-Python, which adds some 2 ms to a chunk that `hooks.chunks` does not take.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, ZstdCodec

_SHUFFLE, _BIT = BloscShuffle.shuffle, BloscShuffle.bitshuffle
CODECS: dict[str, tuple[Any, ...]] = {
    "none": (),
    "none, crc32c": (Crc32cCodec(),),
    "zstd 3, crc32c": (ZstdCodec(level=3), Crc32cCodec()),
    "blosc lz4 5, shuffle, crc32c": (BloscCodec(cname="lz4", shuffle=_SHUFFLE), Crc32cCodec()),
    "blosc zstd 1, shuffle, crc32c": (BloscCodec(clevel=1, shuffle=_SHUFFLE), Crc32cCodec()),
    "blosc zstd 3, shuffle, crc32c": (BloscCodec(clevel=3, shuffle=_SHUFFLE), Crc32cCodec()),
    "blosc zstd 3, shuffle": (BloscCodec(clevel=3, shuffle=_SHUFFLE),),
    "blosc zstd 3, bitshuffle, crc32c": (BloscCodec(clevel=3, shuffle=_BIT), Crc32cCodec()),
    "blosc zstd 5, shuffle, crc32c": (BloscCodec(clevel=5, shuffle=_SHUFFLE), Crc32cCodec()),
}


def variables() -> dict[str, np.ndarray]:
    """One sample's arrays of FLUX at 1024 x 1024 and 28 steps, of normal numbers and a smooth image."""
    draw = np.random.default_rng(0)
    latents = draw.standard_normal((28, 16, 128, 128), dtype=np.float32)
    half = (latents.view(np.uint32) & 0xFFFF0000).view(np.float32)  # what bfloat16 can hold
    y, x = np.mgrid[:1024, :1024] / 1024
    smooth = 128 + 100 * np.sin(9 * x)[..., None] * np.cos(7 * y)[..., None] * [1, 0.8, 0.6]
    image = (smooth + draw.normal(0, 2, (1024, 1024, 3))).clip(0, 255).astype(np.uint8)
    norms = np.exp(draw.normal(3, 1, (28, 1, 57, 2))).astype(np.float32)
    return {"latents": latents, "latents from bfloat16": half, "norms": norms, "image": image}


def table(rounds: int) -> str:
    """Markdown: for each variable and codec, MB on disk, ms to write and to read, medians."""
    lines = ["| variable | codec | MB | write, ms | read, ms |", "|---|---|---|---|---|"]
    for name, values in variables().items():
        for codec, chain in CODECS.items():
            size, write, read = _measure(values, chain, rounds)
            lines.append(
                f"| {name} | {codec} | {size / 1e6:.3g} | {1e3 * write:.1f} | {1e3 * read:.1f} |"
            )
    return "\n".join(lines)


def _measure(values: np.ndarray, chain: tuple[Any, ...], rounds: int) -> tuple[float, float, float]:
    writes, reads, size = [], [], 0.0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            group = zarr.create_group(folder)
            array = group.create_array(
                "a",
                shape=(1, *values.shape),
                chunks=(1, *values.shape),
                dtype=values.dtype,
                compressors=chain or None,
            )
            start = time.perf_counter()
            array[0] = values
            writes.append(time.perf_counter() - start)
            start = time.perf_counter()
            back = np.asarray(zarr.open_array(Path(folder) / "a")[0])
            reads.append(time.perf_counter() - start)
            if not np.array_equal(back, values):
                raise RuntimeError("what was read is not what was written")
            size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return size, statistics.median(writes), statistics.median(reads)


def opening(rounds: int, samples: int) -> str:
    """A line on how long xarray takes to open a run of that many samples."""
    import xarray as xr

    from hooks import record
    from tests.bench.narrow import call, pipeline

    pipe, seconds = pipeline(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        with record(pipe, path):
            for _ in range(samples):
                call(pipe, 2)
        for _ in range(rounds):
            start = time.perf_counter()
            xr.open_zarr(path)
            seconds.append(time.perf_counter() - start)
    ms = 1000 * statistics.median(seconds)
    return f"Opening a run of {samples} samples with xarray takes {ms:.0f} ms."
