"""Bytes and seconds to write and to read a variable, by codec: why `hooks.blank` has the one it has.

Written as a run is, by `hooks.chunks`, beside Zarr-Python, and read by Zarr-Python, as xarray does.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec, ZstdCodec

from stepscope.hooks.chunks import Chunks

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
    writers = " | ".join(f"write, {name}, ms" for name in WRITERS)
    lines = [f"| variable | codec | MB | {writers} | read, ms |"]
    lines.append("|---" * (len(WRITERS) + 4) + "|")
    for name, values in variables().items():
        for codec, chain in CODECS.items():
            size, *seconds = _measure(values, chain, rounds)
            ms = " | ".join(f"{1e3 * s:.1f}" for s in seconds)
            lines.append(f"| {name} | {codec} | {size / 1e6:.3g} | {ms} |")
    return "\n".join(lines)


def _chunks(folder: Path, array: zarr.Array) -> Callable[[np.ndarray], None]:
    chunks = Chunks(folder, json.loads((folder / "zarr.json").read_text()))
    return lambda values: chunks.write(0, values[None])


def _zarr_python(folder: Path, array: zarr.Array) -> Callable[[np.ndarray], None]:
    def write(values: np.ndarray) -> None:
        array[0] = values

    return write


WRITERS = {"hooks.chunks": _chunks, "Zarr-Python": _zarr_python}


def _measure(values: np.ndarray, chain: tuple[Any, ...], rounds: int) -> list[float]:
    """Bytes, then medians in seconds: of each writer, and of reading."""
    spent: dict[str, list[float]] = {name: [] for name in (*WRITERS, "read")}
    size = 0.0
    for turn in range(rounds):
        for name in list(WRITERS)[:: 1 if turn % 2 else -1]:  # the first has a colder cache
            with tempfile.TemporaryDirectory() as folder:
                array = zarr.create_group(folder).create_array(
                    "a",
                    shape=(1, *values.shape),
                    chunks=(1, *values.shape),
                    dtype=values.dtype,
                    compressors=chain or None,
                )
                write = WRITERS[name](Path(folder) / "a", array)
                start = time.perf_counter()
                write(values)
                spent[name].append(time.perf_counter() - start)
                start = time.perf_counter()
                back = np.asarray(zarr.open_array(Path(folder) / "a")[0])
                spent["read"].append(time.perf_counter() - start)
                if not np.array_equal(back, values):
                    raise RuntimeError("what was read is not what was written")
                size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    return [size, *map(statistics.median, spent.values())]


def opening(rounds: int, samples: int) -> str:
    """A line on how long xarray takes to open a run of that many samples."""
    import xarray as xr

    from stepscope.hooks import record
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
