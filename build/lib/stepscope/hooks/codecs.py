"""The codecs of a run's arrays, made from their metadata as the Zarr 3 specification has it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import google_crc32c
import numpy as np
from numcodecs.blosc import Blosc
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd

from stepscope.hooks.errors import RunError, nearest


@runtime_checkable
class Codec(Protocol):
    """One stage between the values of a chunk and the bytes of its file."""

    def encode(self, buf: Any) -> Any: ...
    def decode(self, buf: Any) -> Any: ...


class Numbers:
    """`bytes`: the values in order, in their own type."""

    def __init__(self, dtype: np.dtype, endian: str = "little") -> None:
        self._dtype = dtype.newbyteorder("<" if endian == "little" else ">")

    def encode(self, buf: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(buf, self._dtype)

    def decode(self, buf: Any) -> np.ndarray:
        return np.frombuffer(buf, self._dtype)


class Checksum:
    """`crc32c`: four bytes at the end that tell a flipped one from a number."""

    def encode(self, buf: Any) -> bytes:
        data = bytes(buf)
        return data + google_crc32c.value(data).to_bytes(4, "little")

    def decode(self, buf: bytes) -> bytes:
        if len(buf) < 4:  # an empty file: the checksum of nothing is 0
            raise ValueError("the file is cut off")
        data, stored = buf[:-4], int.from_bytes(buf[-4:], "little")
        if google_crc32c.value(data) != stored:
            raise ValueError("checksum and content do not match")
        return data


def _blosc(dtype: np.dtype, shuffle: str, **settings: Any) -> Codec:
    return Blosc(shuffle=("noshuffle", "shuffle", "bitshuffle").index(shuffle), **settings)


CODECS: dict[str, Callable[..., Codec]] = {
    "bytes": Numbers,
    "vlen-utf8": lambda dtype: VLenUTF8(),
    "blosc": _blosc,
    "zstd": lambda dtype, **settings: Zstd(**settings),
    "crc32c": lambda dtype: Checksum(),
}
"""By their names in the specification; each from the array's type and its own settings."""


def codecs(dtype: np.dtype, documents: Sequence[Mapping[str, Any]]) -> list[Codec]:
    """The codecs of an array, in the order in which they encode.

    Raises RunError for one that is not in `CODECS`.
    """
    made = []
    for document in documents:
        name = document["name"]
        if name not in CODECS:
            raise RunError(f"no codec {name!r}; {nearest(name, CODECS)}")
        made.append(CODECS[name](dtype, **document.get("configuration", {})))
    return made
