"""What a run holds of a face: its embedding and its aligned picture, a value of each for every sample."""

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
SHAPES = {"face_embedding": (512,), "face_crop": (112, 112, 3)}
"""Shapes of one sample's."""
