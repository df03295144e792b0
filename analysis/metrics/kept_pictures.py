"""Decoded images that several metrics look at, kept in memory while they fit."""

from collections import OrderedDict
from typing import Any

import numpy as np

from stepscope.analysis.metrics.decode import pictures
from stepscope.hooks.fingerprint import of_bytes

LIMIT = 512_000_000
"""Bytes of images in memory."""
_KEPT: OrderedDict[tuple[int, str], np.ndarray] = OrderedDict()


def kept_pictures(vae: Any, latents: np.ndarray) -> np.ndarray:
    """`pictures` of finite latents (n, channel, y, x), each that was not decoded lately once."""
    keys = [(id(vae), of_bytes(np.ascontiguousarray(one).tobytes())) for one in latents]
    left = {key: i for i, key in reversed([*enumerate(keys)]) if key not in _KEPT}
    made = dict(zip(left, pictures(vae, latents[[*left.values()]]), strict=True)) if left else {}
    found = np.stack([made[key] if key in made else _KEPT[key] for key in keys])
    for key, image in zip(keys, found, strict=True):
        _KEPT[key] = image.copy()
        _KEPT.move_to_end(key)
    while len(_KEPT) * found[0].nbytes > LIMIT:
        _KEPT.popitem(last=False)
    return found
