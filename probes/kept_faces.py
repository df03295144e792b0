"""What a run keeps of the face or the picture that conditions a sample."""

from collections.abc import Collection

import numpy as np

from stepscope.probes.face_variables import extras_of
from stepscope.probes.faces import Face


def values_of(face: Face | None, reads: Collection[str]) -> dict[str, np.ndarray]:
    """The variables of `face_variables` of one sample, whose face this is; NaN or 0 without one."""
    crop = None if face is None else face.crop
    picture = None if face is None else face.picture
    found: dict[str, np.ndarray] = {
        "face_embedding": np.full(512, np.nan, np.float32) if face is None else face.embedding,
        "face_crop": np.zeros((112, 112, 3), np.uint8) if crop is None else crop,
        "image_prompt": np.zeros((224, 224, 3), np.uint8) if picture is None else picture,
    }
    return {name: found[name] for name in extras_of(reads)}
