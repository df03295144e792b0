"""What a run holds of a face or a picture that conditions it, a value of each for every sample."""

from collections.abc import Collection

from stepscope.hooks.vocabulary import Variable

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
