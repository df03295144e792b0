"""The visual tower of EVA02-CLIP-L-14-336 (`EVA02_CLIP_L_336_psz14_s6B.pt`), whose outputs PuLID reads.

Follows the code that PuLID ships (github.com/ToTheBeginning/PuLID at 1aa2fc7, eva_clip/eva_vit_model.py and
eva_clip/rope.py; Sun et al. 2023, arXiv 2303.15389) with the published names of weights. Sizes are read
from the shapes; a head is 64 wide.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError, explained

HEAD = 64
TRAINED_GRID = 16
"""Patches along a side, 224 / 14, whose places the rotary angles count: finer grids are stretched to it."""
HIDDEN_BEFORE = (4, 8, 12, 16, 20)
"""The blocks whose inputs are the hidden states."""
EPS = 1e-6


class _Attention(nn.Module):
    """Self-attention with rotary places of the patches; the class token, first, has none."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.inner_attn_ln = nn.LayerNorm(width, EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        made = self.q_proj(x) + self.q_bias, self.k_proj(x), self.v_proj(x) + self.v_bias
        q, k, v = (rearrange(one, "b n (h c) -> b h n c", c=HEAD) for one in made)
        q, k = _rotated(q, angles), _rotated(k, angles)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(self.inner_attn_ln(rearrange(out, "b h n c -> b n (h c)")))


def _rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Neighbouring channels of each patch turned by its angles, (patch, channel)."""
    first, patches = x[:, :, :1], x[:, :, 1:]
    pairs = rearrange(patches, "... (c two) -> ... c two", two=2)
    turned = torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
    patches = patches * angles.cos() + turned * angles.sin()
    return torch.cat((first, patches.to(x)), dim=2)


class _SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, inner), nn.Linear(width, inner)
        self.ffn_ln = nn.LayerNorm(inner, EPS)
        self.w3 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class _Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn, self.mlp = _Attention(width), _SwiGLU(width, inner)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), angles)
        return x + self.mlp(self.norm2(x))


class _Patches(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, side, side)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class EvaClip(nn.Module):
    """Normalised RGB images to the class output, not normalised, and five hidden states.

    side: pixels of a patch. grid: patches along the image's side. depth: blocks, 21 at least.
    """

    def __init__(
        self, *, width: int, inner: int, depth: int, side: int, grid: int, output: int
    ) -> None:
        super().__init__()
        self.size, self.grid = side * grid, grid
        self.patch_embed = _Patches(width, side)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid**2, width))
        self.blocks = nn.ModuleList(_Block(width, inner) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, output)

    def forward(
        self, image: Float[Tensor, "sample 3 row column"]
    ) -> tuple[Float[Tensor, "sample channel"], Float[Tensor, "sample 5 token width"]]:
        image = image.to(self.cls_token)
        x = torch.cat((self.cls_token.expand(len(image), -1, -1), self.patch_embed(image)), dim=1)
        x = x + self.pos_embed
        angles, hidden = _angles(self.grid).to(x.device), []
        for index, block in enumerate(self.blocks):
            if index in HIDDEN_BEFORE:
                hidden.append(x)
            x = block(x, angles)
        return self.head(self.norm(x)[:, 0]), torch.stack(hidden, dim=1)


def _angles(grid: int) -> Float[Tensor, "patch channel"]:
    """Of each patch, row by row: the row's in the first half of a head's channels, then the column's."""
    half = HEAD // 2
    frequency = 1 / 10000 ** (torch.arange(0, half, 2).float() / half)
    along = torch.arange(grid) / grid * TRAINED_GRID
    angle = repeat(along[:, None] * frequency, "n c -> n (c two)", two=2)
    rows, columns = repeat(angle, "y c -> y x c", x=grid), repeat(angle, "x c -> y x c", y=grid)
    return rearrange(torch.cat((rows, columns), dim=-1), "y x c -> (y x) c")


def load_eva_clip(path: str) -> EvaClip:
    """The visual tower from the published file, in float32; the text's is not read.

    Raises WeightsError for a file that is missing, damaged or of another model.
    """
    file = located(path)
    if not file.is_file():
        raise WeightsError(f"adapter.clip: no file {path!r}")
    with explained(path, "adapter.clip"):
        return built(_visual(file))


def built(weights: Mapping[str, Tensor]) -> EvaClip:
    """The tower of these weights. Raises KeyError or RuntimeError for those of another network."""
    width, _, side, _ = weights["patch_embed.proj.weight"].shape
    with torch.device("meta"):
        tower = EvaClip(
            width=width,
            inner=weights["blocks.0.mlp.w1.weight"].shape[0],
            depth=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
            side=side,
            grid=round((weights["pos_embed"].shape[1] - 1) ** 0.5),
            output=weights["head.weight"].shape[0],
        )
    tower.load_state_dict(weights, assign=True)
    return tower.float().eval().requires_grad_(False)


def _visual(file: Path) -> dict[str, Tensor]:
    """Names within the tower. Rotary tables, which are there once for each block, are made anew."""
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    found = next((found[key] for key in ("model", "module", "state_dict") if key in found), found)
    names = {name: name.removeprefix("module.") for name in found}
    return {
        of.removeprefix("visual."): found[name]
        for name, of in names.items()
        if of.startswith("visual.") and "rope.freqs_" not in of
    }
