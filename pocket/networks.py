"""The small networks of the study: two recognisers, the detector in SCRFD's form, two read-outs.

recogniser_a, recogniser_b      embed(net, images, keypoints) -> (n, 512), unit length
detector                        detect(net, images) -> scores (n,), keypoints (n, 5, 2)
attributes, wholeness           net(images): logits per attribute; a map of faults
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepscope.pocket.alignment import norm_crop
from stepscope.pocket.world import ATTRIBUTES

EMBEDDING = 512
STRIDES = (8, 16, 32)
# insightface's SCRFD feeds (pixel - 127.5) / 128 with pixels from 0 to 255.
DETECTOR_MEAN, DETECTOR_STD = 127.5, 128.0
ANCHORS = 2


def conv(i: int, o: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """A 3 x 3 convolution, batch norm, activation."""
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), act())


class ResidualUnit(nn.Module):
    """InsightFace's improved residual unit: norm, conv, norm, PReLU, conv, norm."""

    def __init__(self, i: int, o: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(i),
            nn.Conv2d(i, o, 3, 1, 1, bias=False),
            nn.BatchNorm2d(o),
            nn.PReLU(o),
            nn.Conv2d(o, o, 3, stride, 1, bias=False),
            nn.BatchNorm2d(o),
        )
        self.skip = (
            nn.Identity()
            if i == o and stride == 1
            else nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class RecogniserA(nn.Module):
    """The conditioning encoder: a residual convnet with a flattened head (IR-ResNet)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.PReLU(24),
            ResidualUnit(24, 32, 1),
            ResidualUnit(32, 48, 2),
            ResidualUnit(48, 48, 1),
            ResidualUnit(48, 80, 2),
            ResidualUnit(80, 80, 1),
            ResidualUnit(80, 112, 2),
            ResidualUnit(112, 112, 1),
            nn.Conv2d(112, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Linear(16 * 7 * 7, EMBEDDING, bias=False)
        self.norm = nn.BatchNorm1d(EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 112, 112) in [-1, 1] -> (n, 512), of any length."""
        return self.norm(self.head(self.body(x).flatten(1)))


class Attention(nn.Module):
    """A pre-norm transformer block of 32-wide heads."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.heads = width // 32
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, tokens, 3, self.heads, 32).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(self.norm2(x))


class RecogniserB(nn.Module):
    """The judge: a transformer over 14 x 14 patches, whose last tokens four learned maps pool."""

    def __init__(self, width: int = 128, depth: int = 4, maps: int = 4):
        super().__init__()
        self.patches = nn.Sequential(
            conv(3, 32, 2, nn.SiLU), conv(32, 64, 2, nn.SiLU), conv(64, width, 2, nn.SiLU)
        )
        self.place = nn.Parameter(torch.randn(1, 196, width) * 0.02)
        self.blocks = nn.Sequential(*(Attention(width, 3 * width) for _ in range(depth)))
        self.norm_tokens, self.maps = nn.LayerNorm(width), nn.Linear(width, maps)
        self.head = nn.Linear(maps * width, EMBEDDING, bias=False)
        self.norm = nn.BatchNorm1d(EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 112, 112) in [-1, 1] -> (n, 512), of any length."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        tokens = self.norm_tokens(self.blocks(tokens))
        pooled = self.maps(tokens).softmax(1).transpose(1, 2) @ tokens
        return self.norm(self.head(pooled.flatten(1)))


class Detector(nn.Module):
    """A face detector that sees every size with one network.

    The network works at stride 8; SCRFD's strides 16 and 32 are the same network on the image
    halved once and twice, so what it learns of faces of 36 to 150 pixels holds up to 600.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.fine = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), conv(32, 48, 2), conv(48, width))
        self.middle = nn.Sequential(conv(width, width, 2), conv(width, width))
        self.coarse = nn.Sequential(conv(width, width, 2), conv(width, width))
        self.head = nn.Sequential(
            conv(width, width), nn.Conv2d(width, ANCHORS * (1 + 4 + 10), 3, 1, 1)
        )

    def level(self, x: Tensor) -> Tensor:
        """One size of the image: (n, cells * anchors, 15), in units of 8 of its pixels."""
        fine = self.fine(x)
        middle = self.middle(fine)
        middle = middle + F.interpolate(self.coarse(middle), size=middle.shape[-2:])
        fine = fine + F.interpolate(middle, size=fine.shape[-2:])
        out = self.head(fine)
        n, _, h, w = out.shape
        return out.view(n, ANCHORS, 15, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 15)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 3, h, w), h and w multiples of 32 -> per stride (n, cells * anchors, 15): score
        logit, distances to left, top, right, bottom, keypoint offsets; lengths in strides."""
        levels = []
        for i, stride in enumerate(STRIDES):
            level = self.level(x if i == 0 else F.avg_pool2d(x, 2**i))
            # A halved image's first pixel centre lies half a pixel into the full image's.
            shift = (2**i - 1) / 2 / stride
            signs = level.new_tensor([0.0, -1, -1, 1, 1] + [1.0] * 10)
            levels.append(level + shift * signs)
        return levels


class AttributeReadout(nn.Module):
    """Which attributes a picture shows: one list of logits per attribute."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 24, 2), conv(24, 32), conv(32, 48, 2), conv(48, 48), conv(48, 64, 2),
            conv(64, 64), conv(64, 96, 2), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.heads = nn.ModuleList(nn.Linear(96 * 16, len(v)) for v in ATTRIBUTES.values())

    def forward(self, images: Tensor) -> list[Tensor]:
        """images (n, 3, 128, 128) in [0, 1] -> logits (n, values), in ATTRIBUTES' order."""
        features = self.body(images * 2 - 1)
        return [head(features) for head in self.heads]


class WholenessReadout(nn.Module):
    """Where a face is broken: a map of fault logits, 8 x 8 pixels a cell."""

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(
            conv(3, 24, 2), conv(24, 32), conv(32, 48, 2), conv(48, 64), conv(64, 64, 2)
        )
        self.context = nn.Sequential(conv(64, 64, 2), conv(64, 64), conv(64, 64, 2), conv(64, 64))
        self.head = nn.Sequential(conv(64, 64), conv(64, 64), nn.Conv2d(64, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """images (n, 3, 128, 128) in [0, 1] -> (n, 16, 16) logits; the picture's is their max."""
        fine = self.fine(images * 2 - 1)
        around = F.interpolate(self.context(fine), size=fine.shape[-2:])
        return self.head(fine + around)[:, 0]


def centres(side: int, stride: int, device: torch.device) -> Tensor:
    """Where SCRFD's anchors stand in a square image: (cells * anchors, 2), pixels."""
    edge = torch.arange(side // stride, device=device) * float(stride)
    y, x = torch.meshgrid(edge, edge, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, ANCHORS, -1).reshape(-1, 2)


@torch.no_grad()
def detect(detector: Detector, images: Tensor) -> tuple[Tensor, Tensor]:
    """The surest face of each picture: images (n, 3, s, s) in [0, 1] -> (n,) in [0, 1], (n, 5, 2).

    The keypoints are there even where the score says that nothing was found.
    """
    levels = detector((images * 255 - DETECTOR_MEAN) / DETECTOR_STD)
    scores, points = [], []
    for level, stride in zip(levels, STRIDES, strict=True):
        score, best = level[..., 0].float().sigmoid().max(1)
        row = level[torch.arange(len(level), device=level.device), best].float()
        where = centres(images.shape[-1], stride, images.device)[best]
        scores.append(score)
        points.append(row[:, 5:].view(-1, 5, 2) * stride + where[:, None])
    score, surest = torch.stack(scores).max(0)
    return score, torch.stack(points)[surest, torch.arange(len(images), device=images.device)]


def embed(recogniser: nn.Module, images: Tensor, keypoints: Tensor) -> Tensor:
    """Unit-length embeddings (n, 512) of images (n, 3, h, w) in [0, 1] at their keypoints."""
    return F.normalize(raw(recogniser, images, keypoints))


@torch.no_grad()
def raw(recogniser: nn.Module, images: Tensor, keypoints: Tensor) -> Tensor:
    """The embeddings of any length, as a recogniser's file gives them."""
    return recogniser(norm_crop(images, keypoints) * 2 - 1).float()
