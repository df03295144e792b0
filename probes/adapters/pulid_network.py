"""The networks of PuLID for FLUX: IDFormer, which makes identity tokens, and the cross-attentions that read them.

Follows the published code (github.com/ToTheBeginning/PuLID at 1aa2fc7, pulid/encoders_transformer.py) with the
published names of weights, so that `pulid_flux_v0.9.1.safetensors` loads strictly. Every size is read from the
shapes; a head is 64 wide in IDFormer and 128 in a cross-attention.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stepscope.probes.weights import WeightsError, explained

FACE, CLIP = 512, 768
"""Numbers of a face: its recogniser's embedding, then the class output of EVA-CLIP."""
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

    dim, depth, heads, inner: of IDFormer's layers. queries: identity tokens that come out, of `width` channels.
    face_tokens: those that a face goes in as. face, mapped: numbers of a face and width of its mapping; vit,
    vit_mapped: of EVA-CLIP's tokens. modules: number of cross-attentions; image, image_heads: theirs.
    numbers: all weights.
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
        """Raises KeyError for a weight that is not there, IndexError or ValueError for one of another rank."""
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
            numbers=sum(torch.Size(shape).numel() for shape in shapes.values()),
        )


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers names have at a place."""
    return len({found[1] for found in (re.match(pattern, name) for name in shapes) if found})


class _Attention(nn.Module):
    """Attention of `asking` to `told` (PerceiverAttentionCA), or to `told` and itself (PerceiverAttention)."""

    def __init__(self, asking: int, told: int, heads: int, head: int, *, itself: bool) -> None:
        super().__init__()
        self.heads, self.head, self.itself = heads, head, itself
        self.norm1, self.norm2 = nn.LayerNorm(told), nn.LayerNorm(asking)
        self.to_q = nn.Linear(asking, heads * head, bias=False)
        self.to_kv = nn.Linear(told, 2 * heads * head, bias=False)
        self.to_out = nn.Linear(heads * head, asking, bias=False)

    def forward(
        self, told: Float[Tensor, "row source width"], asking: Float[Tensor, "row token channel"]
    ) -> Float[Tensor, "row token channel"]:
        told, asking = self.norm1(told), self.norm2(asking)
        told = torch.cat((told, asking), dim=1) if self.itself else told
        made = (self.to_q(asking), *self.to_kv(told).chunk(2, dim=-1))
        q, k, v = (rearrange(x, "row token (h c) -> row h token c", h=self.heads) for x in made)
        # as published, for half precision: both sides by the root of the scale, softmax in float32
        scale = self.head**-0.25
        weight = ((q * scale) @ (k * scale).transpose(-2, -1)).float().softmax(-1).to(q)
        return self.to_out(rearrange(weight @ v, "row h token c -> row token (h c)"))


def _mapping(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LayerNorm(width),
        nn.LeakyReLU(),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.LeakyReLU(),
        nn.Linear(width, outputs),
    )


class IDFormer(nn.Module):
    """A perceiver resampler: a face and EVA-CLIP's tokens of five depths to identity tokens."""

    def __init__(self, sizes: PulidSizes) -> None:
        super().__init__()
        s = sizes
        self.queries, self.face_tokens, self.each = s.queries, s.face_tokens, s.depth // SCALES
        self.latents = nn.Parameter(torch.empty(1, s.queries, s.dim))
        self.proj_out = nn.Parameter(torch.empty(s.dim, s.width))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (
                    _Attention(s.dim, s.dim, s.heads, ENCODER_HEAD, itself=True),
                    nn.Sequential(
                        nn.LayerNorm(s.dim),
                        nn.Linear(s.dim, s.inner, bias=False),
                        nn.GELU(),
                        nn.Linear(s.inner, s.dim, bias=False),
                    ),
                )
            )
            for _ in range(s.depth)
        )
        for i in range(SCALES):
            self.add_module(f"mapping_{i}", _mapping(s.vit, s.vit_mapped, s.dim))
        self.id_embedding_mapping = _mapping(s.face, s.mapped, s.dim * s.face_tokens)

    def forward(
        self, face: Float[Tensor, "sample number"], hidden: Float[Tensor, "sample 5 token width"]
    ) -> Float[Tensor, "sample query channel"]:
        mapped = self.id_embedding_mapping(face)
        mapped = rearrange(mapped, "sample (n c) -> sample n c", n=self.face_tokens)
        queries = repeat(self.latents, "1 n c -> sample n c", sample=len(face))
        latents = torch.cat((queries, mapped), dim=1)
        for scale in range(SCALES):
            vit = self.get_submodule(f"mapping_{scale}")(hidden[:, scale])
            context = torch.cat((mapped, vit), dim=1)
            for layer in range(scale * self.each, (scale + 1) * self.each):
                attend = self.get_submodule(f"layers.{layer}.0")
                forward = self.get_submodule(f"layers.{layer}.1")
                latents = attend(context, latents) + latents
                latents = forward(latents) + latents
        return latents[:, : self.queries] @ self.proj_out


class Pulid(nn.Module):
    """IDFormer (`pulid_encoder`) and the cross-attentions of image tokens to identity tokens (`pulid_ca`).

    Set `identity` before a call, and `unconditional` before one with true CFG: (row of the batch, token, channel)
    each, or one row for all.
    """

    identity: Tensor | None = None
    unconditional: Tensor | None = None

    def __init__(self, sizes: PulidSizes) -> None:
        super().__init__()
        self.sizes = s = sizes
        self.pulid_encoder = IDFormer(s)
        self.pulid_ca = nn.ModuleList(
            _Attention(s.image, s.width, s.image_heads, IMAGE_HEAD, itself=False)
            for _ in range(s.modules)
        )

    @torch.no_grad()
    def tokens(
        self, face: Float[Tensor, "sample number"], hidden: Float[Tensor, "sample 5 token width"]
    ) -> Float[Tensor, "sample query channel"]:
        """Identity tokens; of zeros, those of nobody, which the negative pass is given.

        face: the recogniser's embedding, not normalised, then EVA-CLIP's class output of unit norm.
        hidden: EVA-CLIP's hidden states, from the shallowest.
        """
        like = self.pulid_encoder.proj_out
        return self.pulid_encoder(face.to(like), hidden.to(like))


def sizes_of(path: Path) -> PulidSizes:
    """What the header of a file says, without its weights. Raises WeightsError as `load_pulid` does."""
    shapes = _shapes(path)
    try:
        sizes = PulidSizes.of(shapes)
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(_told(path, shapes, error)) from error
    with torch.device("meta"):
        expected = {name: tuple(w.shape) for name, w in Pulid(sizes).state_dict().items()}
    missing = [name for name in expected if name not in shapes]
    other = [name for name in shapes if name not in expected]
    wrong = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    if sizes.depth % SCALES:
        raise WeightsError(f"{path} has {sizes.depth} layers of IDFormer, no multiple of {SCALES}")
    for names, words in ((missing, "lacks"), (other, "has what PuLID for FLUX has not,")):
        if names:
            raise WeightsError(f"{path} {words} {_counted(names)}")
    if wrong:
        found, asked = shapes[wrong[0]], expected[wrong[0]]
        raise WeightsError(f"{path}: {_counted(wrong)} is {found}, and fits the others as {asked}")
    return sizes


def load_pulid(path: Path, dtype: torch.dtype) -> Pulid:
    """Both networks from a published file.

    Raises WeightsError if it is missing, truncated or of another model, with the first weight that it lacks.
    v0.9.0 has the same names and shapes, and loads too.
    """
    sizes = sizes_of(path)
    with torch.device("meta"):
        network = Pulid(sizes)
    with explained(str(path), "adapter"):
        weights = load_file(path)
    network.load_state_dict(weights, assign=True)
    return network.to(dtype).eval().requires_grad_(False)


def check_fits(sizes: PulidSizes, path: str, *, doubles: int, singles: int, width: int) -> None:
    """Raise WeightsError where a transformer of these blocks and this width is not what a file is for.

    path: names the adapter in the message.
    """
    needed = -(-doubles // DOUBLE_INTERVAL) + -(-singles // SINGLE_INTERVAL)
    if sizes.modules != needed:
        raise WeightsError(
            f"{path} has {sizes.modules} pulid_ca, and a transformer of {doubles} double and {singles} single "
            f"blocks needs {needed}: it is the adapter of another backbone"
        )
    if sizes.image != width:
        raise WeightsError(
            f"{path} is for image tokens of {sizes.image} channels, and the transformer's have {width}: it is "
            "the adapter of another backbone"
        )


def _shapes(path: Path) -> Shapes:
    if not path.is_file():
        raise WeightsError(f"adapter: no file {str(path)!r}")
    with explained(str(path), "adapter"), safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _told(path: Path, shapes: Shapes, error: Exception) -> str:
    """What is wrong with a file whose sizes cannot be read."""
    if any(name.startswith(("id_adapter", "id_encoder")) for name in shapes):
        return f"{path} is PuLID for SDXL: name pulid_flux_v0.9.1.safetensors"
    lost = f"lacks {error.args[0]}" if isinstance(error, KeyError) else f"has {error}"
    return f"{path} is not PuLID for FLUX: it {lost}"


def _counted(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
