"""What a run holds of a face or a picture that conditions it, a value of each for every sample."""

from collections.abc import Collection

import numpy as np

from stepscope.hooks.vocabulary import Variable
from stepscope.probes.faces import Face

FACE_VARIABLES = {
    "face_embedding": Variable(
        ("sample", "embedding"),
        "float32",
        "1",
        "unit-norm embedding of the conditioning face by the conditioning encoder; NaN without one",
    ),
    "face_crop": Variable(
        ("sample", "crop_row", "crop_column", "rgb"),
        "uint8",
        "1",
        "the conditioning face, aligned to 112 x 112 by its five keypoints; 0 where only an embedding "
        "was given",
    ),
}
"""The variables of a sample that say whose face conditions it."""
PICTURE_VARIABLES = {
    "image_prompt": Variable(
        ("sample", "image_row", "image_column", "rgb"),
        "uint8",
        "1",
        "the picture that the adapter is given, as its image encoder sees it; 0 where only an embedding "
        "was given",
    ),
}
"""The variables of a sample that say which picture conditions it."""
SHAPES = {
    "face_embedding": (512,),
    "face_crop": (112, 112, 3),
    "image_prompt": (224, 224, 3),
}
"""Shapes of one sample's."""


def extras_of(reads: Collection[str]) -> dict[str, tuple[Variable, tuple[int, ...]]]:
    """Of a run whose adapters read these: each variable with the shape of one sample's."""
    declared = (FACE_VARIABLES if "face" in reads else {}) | (
        PICTURE_VARIABLES if "picture" in reads else {}
    )
    return {name: (one, SHAPES[name]) for name, one in declared.items()}


def values_of(face: Face | None, reads: Collection[str]) -> dict[str, np.ndarray]:
    """The same of one sample, whose face this is."""
    crop = None if face is None else face.crop
    picture = None if face is None else face.picture
    found: dict[str, np.ndarray] = {
        "face_embedding": np.full(512, np.nan, np.float32) if face is None else face.embedding,
        "face_crop": np.zeros((112, 112, 3), np.uint8) if crop is None else crop,
        "image_prompt": np.zeros((224, 224, 3), np.uint8) if picture is None else picture,
    }
    return {name: found[name] for name in extras_of(reads)}
