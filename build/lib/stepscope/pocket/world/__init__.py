"""A world of procedural portraits: identity, prompt attributes, nuisance -> image, keypoints."""

from stepscope.pocket.world.render import paint, render
from stepscope.pocket.world.vocabulary import (
    ATTRIBUTES,
    IDENTITY,
    NUISANCE,
    SIZE,
    attributes_row,
    sample_attributes,
    sample_identities,
    sample_nuisance,
)

__all__ = [
    "ATTRIBUTES",
    "IDENTITY",
    "NUISANCE",
    "SIZE",
    "attributes_row",
    "paint",
    "render",
    "sample_attributes",
    "sample_identities",
    "sample_nuisance",
]
