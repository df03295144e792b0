"""A face as PuLID reads it: a recogniser's embedding, and EVA-CLIP's class output and hidden states."""

from pathlib import Path

import numpy as np

from stepscope.probes.faces import RAW, Face, FaceError

CLIP, HIDDEN = "eva_clip", "eva_clip_hidden"
"""In `Face.given`: EVA-CLIP's class output (768,) of unit norm, and hidden states (5, token, channel)."""
EMBEDDING = 512
FORM = "a .npz with id_cond, (1280,), and id_vit_hidden, (5, token, channel)"


class PulidReader:
    """Reads what the published `get_id_embedding` makes of a photo."""

    def read(self, name: str, path: Path) -> Face:
        """Raises FaceError for a file of another form."""
        try:
            with np.load(path) as arrays:
                condition, hidden = (
                    np.asarray(arrays[key], np.float32) for key in ("id_cond", "id_vit_hidden")
                )
        except (OSError, ValueError, EOFError, KeyError, AttributeError, TypeError) as error:
            raise FaceError(f"PuLID reads {FORM}: {str(path)!r} is none") from error
        condition = condition.reshape(-1)
        hidden = hidden[0] if hidden.ndim == 4 and len(hidden) == 1 else hidden
        finite = np.isfinite(condition).all() and np.isfinite(hidden).all()
        if condition.size <= EMBEDDING or hidden.ndim != 3 or len(hidden) != 5 or not finite:
            shapes = f"{condition.shape} and {hidden.shape}"
            raise FaceError(f"PuLID reads {FORM} of finite numbers: {str(path)!r} has {shapes}")
        raw, clip = condition[:EMBEDDING], condition[EMBEDDING:]
        unit = raw / np.linalg.norm(raw)
        given = {RAW: raw, CLIP: clip, HIDDEN: hidden}
        return Face(name, unit, None, {"source": "embedding"}, 0.0, given)
