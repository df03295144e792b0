"""A whole tensor of a sample on disk, in the form that a run keeps it in.

A chunk is what one pass gave of one sample, in the model's own precision, uncompressed: of bfloat16 numbers
compression saves a quarter, and takes longer than the model. Zarr has no bfloat16, so its bits are stored
as 16-bit integers, and the array's attribute `number_format` says so.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

KINDS = {"float32": "float32", "float16": "float16", "bfloat16": "uint16"}
"""The precisions that are kept, and the numpy type that each is stored in."""
FORMAT = "number_format"
"""The attribute of an array that names the precision, where it is not that of the numbers stored."""
NAN = {"bfloat16": 0x7FC0}
"""What stands for a missing number; NaN itself for the others."""


@dataclass(frozen=True)
class Whole:
    """What a sample was at a site: shape (step, branch, token, channel), precision, and files by step and
    branch, each one pass's chunk. A step or branch without a file is missing."""

    shape: tuple[int, ...]
    kind: str
    files: Mapping[tuple[int, int], Path]

    def chunk(self, step: int, branch: int) -> np.ndarray:
        """(token, channel), as it is stored."""
        stored = KINDS[self.kind]
        if (step, branch) not in self.files:
            return np.full(self.shape[2:], NAN.get(self.kind, np.nan), stored)
        with self.files[step, branch].open("rb") as file:
            data = np.fromfile(file, stored, int(np.prod(self.shape[2:])))
        return data.reshape(self.shape[2:])

    def values(self) -> np.ndarray:
        """All of it in float32, (step, branch, token, channel)."""
        made = np.empty(self.shape, np.float32)
        for step, branch in np.ndindex(self.shape[:2]):
            made[step, branch] = as_float32(self.chunk(step, branch), self.kind)
        return made

    def on_branches(self, mine: list[str], theirs: list[str]) -> "Whole":
        """The same in a run with other branches."""
        files = {(s, theirs.index(mine[b])): file for (s, b), file in self.files.items()}
        return Whole((self.shape[0], len(theirs), *self.shape[2:]), self.kind, files)


def precision(tensor: Any) -> str:
    """The precision that a torch tensor is kept in: its own, or float32 where Zarr has no such numbers."""
    name = str(tensor.dtype).removeprefix("torch.")
    return name if name in KINDS else "float32"


def encoded(values: Any) -> Iterator[Any]:
    """The bytes of a chunk, a torch tensor, and its CRC-32C, as Zarr's `bytes` and `crc32c` make them."""
    import torch  # not above: a run is read without it

    data = values.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    yield data
    yield google_crc32c.value(data).to_bytes(4, "little")


def as_float32(values: np.ndarray, kind: str) -> np.ndarray:
    """Stored numbers in float32, exactly. kind: the array's `number_format`, or its type."""
    if kind != "bfloat16":
        return values.astype(np.float32)
    return (values.astype(np.uint32) << 16).view(np.float32)
