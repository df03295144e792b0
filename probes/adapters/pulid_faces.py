"""A face as PuLID reads it: a recogniser's embedding, and EVA-CLIP's class output and hidden states."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stepscope.probes.adapters.pulid_encoder import PulidEncoder
from stepscope.probes.adapters.pulid_sizes import SCALES
from stepscope.probes.faces import RAW, UNIT, Face, FaceError, Finder, arrays_of, is_embedding
from stepscope.probes.pictures import read_picture
from stepscope.probes.recognisers import aligned

CLIP, HIDDEN = "eva_clip", "eva_clip_hidden"
"""In `Face.given`: EVA-CLIP's class output (768,) of unit norm, and hidden states (5, token, channel)."""
EMBEDDING = 512
NAMES = "id_cond", "id_vit_hidden"
FORM = "a .npz with id_cond, (1280,), and id_vit_hidden, (5, token, channel)"


class PulidReader:
    """Reads photos, and what the published `get_id_embedding` makes of them.

    load: loads the encoder, which is done at the first photo.
    """

    def __init__(self, finder: Finder, load: Callable[[], PulidEncoder]) -> None:
        self._finder, self._load = finder, load
        self._encoder: PulidEncoder | None = None

    def read(self, name: str, path: Path) -> Face:
        """Raises FaceError, PictureError, WeightsError."""
        if is_embedding(path):
            return read_pulid_face(name, path)
        image = np.asarray(read_picture(path, "face"))[:, :, ::-1].copy()
        self._finder.load()
        if self._encoder is None:
            self._encoder = self._load()
        start = time.perf_counter()
        keypoints, found = self._finder.find(image, str(path))
        seen = self._encoder(image, keypoints)
        crop = aligned(image, keypoints)[:, :, ::-1].copy()
        given = {RAW: seen.raw, CLIP: seen.clip, HIDDEN: seen.hidden}
        unit = seen.raw / np.linalg.norm(seen.raw)
        return Face(name, unit, crop, found, time.perf_counter() - start, given)


def read_pulid_face(name: str, path: Path) -> Face:
    """A face from a `.npz` with `id_cond` and `id_vit_hidden`. Raises FaceError for another form."""
    arrays = arrays_of(path, NAMES, FORM)
    if arrays.keys() != {*NAMES}:
        raise FaceError(
            f"PuLID reads a photo, or {FORM}: {str(path)!r} is neither. For another adapter beside it the "
            f".npz also has that one's arrays, {UNIT} for InfuseNet"
        )
    condition, hidden = arrays[NAMES[0]].reshape(-1), arrays[NAMES[1]]
    hidden = hidden[0] if hidden.ndim == 4 and len(hidden) == 1 else hidden
    if condition.size <= EMBEDDING or hidden.ndim != 3 or len(hidden) != SCALES:
        shapes = f"{condition.shape} and {hidden.shape}"
        raise FaceError(f"PuLID reads {FORM}: {str(path)!r} has {shapes}")
    if not condition[:EMBEDDING].any():
        raise FaceError(f"{str(path)!r} holds nobody: its face embedding is all zeros")
    raw, clip = condition[:EMBEDDING], condition[EMBEDDING:]
    unit = raw / np.linalg.norm(raw)
    given = {RAW: raw, CLIP: clip, HIDDEN: hidden}
    return Face(name, unit, None, {"source": "embedding"}, 0.0, given)
