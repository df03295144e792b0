"""Sizes of PuLID for FLUX, which follow from the shapes of its weights.

A head is 64 wide in IDFormer and 128 in a cross-attention (github.com/ToTheBeginning/PuLID at 1aa2fc7,
pulid/encoders_transformer.py and pulid/pipeline_flux.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

SCALES = 5
"""Layers of EVA-CLIP whose hidden states IDFormer reads, one after the other."""
DOUBLE_INTERVAL, SINGLE_INTERVAL = 2, 4
"""There is a cross-attention after each second double and each fourth single block, from the first on."""
ENCODER_HEAD, IMAGE_HEAD = 64, 128

Shapes = Mapping[str, tuple[int, ...]]
"""Published name of a weight -> its shape."""


@dataclass(frozen=True)
class PulidSizes:
    """Sizes of a file of PuLID for FLUX.

    dim, depth, heads, inner: of IDFormer's layers. queries: identity tokens that come out, of `width`
    channels. face_tokens: those that a face goes in as. face, mapped: numbers of a face and width of its
    mapping; vit, vit_mapped: of EVA-CLIP's tokens. modules: cross-attentions, of `image_heads` heads for
    image tokens of `image` channels. numbers: all weights.
    """

    dim: int
    depth: int
    heads: int
    inner: int
    queries: int
    width: int
    face_tokens: int
    face: int
    mapped: int
    vit: int
    vit_mapped: int
    modules: int
    image: int
    image_heads: int
    numbers: int

    @classmethod
    def of(cls, shapes: Shapes) -> "PulidSizes":
        """Raises KeyError for a missing weight, and IndexError or ValueError for one of another rank."""
        encoder, ca = "pulid_encoder", "pulid_ca.0"
        _, queries, dim = shapes[f"{encoder}.latents"]
        face_tokens, rest = divmod(shapes[f"{encoder}.id_embedding_mapping.6.weight"][0], dim)
        inner_of_heads, _ = shapes[f"{encoder}.layers.0.0.to_q.weight"]
        inner_of_image, image = shapes[f"{ca}.to_q.weight"]
        mapped, face = shapes[f"{encoder}.id_embedding_mapping.0.weight"]
        vit_mapped, vit = shapes[f"{encoder}.mapping_0.0.weight"]
        if rest or inner_of_heads % ENCODER_HEAD or inner_of_image % IMAGE_HEAD:
            raise ValueError("a width that does not divide into heads or tokens")
        return cls(
            dim=dim,
            depth=_count(shapes, rf"{encoder}\.layers\.(\d+)\."),
            heads=inner_of_heads // ENCODER_HEAD,
            inner=shapes[f"{encoder}.layers.0.1.1.weight"][0],
            queries=queries,
            width=shapes[f"{encoder}.proj_out"][1],
            face_tokens=face_tokens,
            face=face,
            mapped=mapped,
            vit=vit,
            vit_mapped=vit_mapped,
            modules=_count(shapes, r"pulid_ca\.(\d+)\."),
            image=image,
            image_heads=inner_of_image // IMAGE_HEAD,
            numbers=sum(prod(shape) for shape in shapes.values()),
        )


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers names have at a place."""
    return len({found[1] for found in (re.match(pattern, name) for name in shapes) if found})
