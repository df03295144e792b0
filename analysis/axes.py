"""What the axes of measurements mean, each said once; those of a run are among them."""

from stepscope.hooks.vocabulary import AXES

MEANINGS = {
    **AXES,
    "recogniser": "face recogniser whose embeddings are compared",
    "conditioning": "whether the recogniser is the adapter's own, so that its judgement is not independent",
    "alignment": "whose keypoints the face is aligned by: detected, of the image itself; fixed, of the "
    "final image",
    "keypoint": "keypoint of a face, left and right as one sees them",
    "xy": "x in pixels from the left, y in pixels from the top",
    "region": "part of the picture: all of the image, or the face",
    "measure": "definition of sharpness",
    "part": "part of the pipeline that is timed, and their total",
    "pair": "what the final image is compared with: the reference face, or the many-step image of the same "
    "face, prompt and seed",
    "toward": "whose face the similarity is to: the sample's own reference, or the one that replaces it",
    "off_from": "first step with the adapter off",
    "off_sigma": "noise level at the start of that step",
    "embedding": "component of the face embedding",
    "crop_column": "column of the aligned face in pixels, from the left",
    "edited_image": "final: at the end of the run; clamped: x0 at the first edited step",
}
"""Of every coordinate that a metric has, and of those that the group repeats of the run."""
