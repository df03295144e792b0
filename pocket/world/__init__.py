"""A world of procedural portraits: identity, prompt attributes, nuisance -> image, keypoints."""

from pocket.world.render import render
from pocket.world.vocabulary import (
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
    "render",
    "sample_attributes",
    "sample_identities",
    "sample_nuisance",
]
