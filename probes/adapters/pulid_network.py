"""The networks of PuLID for FLUX: IDFormer, which makes identity tokens, and what attends to them.

Follows the published code (github.com/ToTheBeginning/PuLID at 1aa2fc7, pulid/encoders_transformer.py) with
the published names of weights, so that `pulid_flux_v0.9.1.safetensors` loads strictly.
"""

from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stepscope.probes.adapters.pulid_sizes import (
    DOUBLE_INTERVAL,
    ENCODER_HEAD,
    IMAGE_HEAD,
    SCALES,
    SINGLE_INTERVAL,
    PulidSizes,
    Shapes,
)
from stepscope.probes.weights import WeightsError, explained


class _Attention(nn.Module):
    """Attention of `asking` to `told` (PerceiverAttentionCA); of PerceiverAttention to itself, too."""

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
    """IDFormer (`pulid_encoder`), and cross-attentions of image tokens to identity tokens (`pulid_ca`).

    Set `identity` before a call, and `unconditional` before one with true CFG: (row of the batch, token,
    channel) each, or one row for all.
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

    Raises WeightsError if it is missing, truncated or of another model, with the first weight that it
    lacks. v0.9.0 has the same names and shapes, and loads too.
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
            f"{path} has {sizes.modules} pulid_ca, and a transformer of {doubles} double and {singles} "
            f"single blocks needs {needed}: it is the adapter of another backbone"
        )
    if sizes.image != width:
        raise WeightsError(
            f"{path} is for image tokens of {sizes.image} channels, and the transformer's have {width}: it "
            "is the adapter of another backbone"
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
