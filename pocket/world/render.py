"""The order in which a portrait is painted."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stepscope.pocket.world import accessories, body, face, features, hair, scenes, styles
from stepscope.pocket.world.canvas import Canvas, whole_frame
from stepscope.pocket.world.hats import paint_hat
from stepscope.pocket.world.looks import restyle
from stepscope.pocket.world.sitter import keypoints, pose, sit
from stepscope.pocket.world.vocabulary import ATTRIBUTES, NUISANCE, SIZE

# Rows painted at once: bounds memory, and fills a GPU.
CHUNK = 512


@torch.no_grad()
def render(
    identity: Tensor,
    attributes: Tensor,
    nuisance: Tensor,
    looks: Tensor | None = None,
    hats: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Portraits and their true keypoints.

    identity (n, identity) in [0, 1], attributes (n, attribute) indices, nuisance (n, nuisance)
    in [-1, 1], all on one device. looks (n, look) in [0, 1] stand in the place of the style, a row of NaN
    leaves it; hats (n, hat) in [0, 1] stand in the place of the accessory, a row of NaN leaves it.
    Returns images (n, 3, SIZE, SIZE), RGB in [0, 1], and keypoints
    (n, 5, 2): x, y in pixels from the first pixel's centre, in insightface's order.
    """
    parts = []
    for i in range(0, len(identity), CHUNK):
        rows = slice(i, i + CHUNK)
        designs = [given if given is None else given[rows] for given in (looks, hats)]
        parts.append(paint(identity[rows], attributes[rows], nuisance[rows], *designs))
    images, points = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(points)


def _groups(attributes: Tensor, key: str, painters: tuple) -> Iterator[tuple[Callable, Tensor]]:
    """Each painter with the rows that asked for it."""
    chosen = attributes[:, list(ATTRIBUTES).index(key)]
    for value, painter in enumerate(painters):
        rows = (chosen == value).nonzero()[:, 0]
        if len(rows):
            yield painter, rows


def _first(attributes: Tensor, key: str, rows: Tensor) -> Tensor:
    """The attributes with the first value of one of them in some rows."""
    attributes = attributes.clone()
    attributes[rows, list(ATTRIBUTES).index(key)] = 0
    return attributes


def _given(design: Tensor) -> Tensor:
    """The rows that have one."""
    return (~design.isnan().any(1)).nonzero()[:, 0]


def paint(
    identity: Tensor,
    attributes: Tensor,
    nuisance: Tensor,
    looks: Tensor | None = None,
    hats: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `render` says, at once and with gradients to identity and nuisance."""
    n = len(identity)
    if looks is not None:
        attributes = _first(attributes, "style", _given(looks))
    if hats is not None:
        attributes = _first(attributes, "accessory", _given(hats))
    frame = whole_frame(n, SIZE, identity.device)
    canvas = Canvas(torch.zeros(n, 3, SIZE, SIZE, device=identity.device))
    drift = {name: nuisance[:, i, None, None] for i, name in enumerate(NUISANCE)}
    drop = scenes.Backdrop(
        0.5 * drift["backdrop_x"], 0.08 * drift["backdrop_y"], (drift["backdrop_hue"] + 1) / 2
    )
    sitter = sit(identity, attributes, nuisance)
    x, y, scale, roll = pose(attributes, nuisance)
    head, trunk = frame.turned(x, y, scale, roll), frame.turned(x, y, scale, torch.zeros_like(roll))

    def each(key: str, painters: tuple, *given) -> None:
        for painter, rows in _groups(attributes, key, painters):
            part = canvas[rows]
            painter(part, *(g[rows] for g in given))
            canvas.image[rows] = part.image

    def wears(*garments: str) -> Tensor:
        chosen = attributes[:, list(ATTRIBUTES).index("clothing")]
        wanted = [ATTRIBUTES["clothing"].index(g) for g in garments]
        return torch.isin(chosen, chosen.new_tensor(wanted)).float()[:, None, None]

    each("scene", scenes.SCENES, frame, drop)
    body.paint_torso(canvas, trunk, sitter, hood=wears("hoodie"), dark=wears("suit", "jacket"))
    hair.paint_back(canvas, head, sitter)
    body.paint_neck(canvas, trunk, sitter)
    each("clothing", body.CLOTHING, trunk, sitter)
    face.paint_ears(canvas, head, sitter)
    skin = face.paint_skull(canvas, head, sitter)
    face.paint_cheeks(canvas, skin, sitter)
    face.paint_beard(canvas, skin, sitter)
    face.paint_mole(canvas, skin, sitter)
    features.paint_nose(canvas, skin, sitter)
    features.paint_mouth(canvas, skin, sitter)
    features.paint_eyes(canvas, skin, sitter)
    hair.paint_front(canvas, head, sitter)
    features.paint_brows(canvas, skin, sitter)
    each("accessory", accessories.ACCESSORIES, head, sitter)
    if hats is not None and len(rows := _given(hats)):
        part = canvas[rows]
        paint_hat(part, head[rows], sitter[rows], hats[rows])
        canvas.image[rows] = part.image
    image = canvas.image.clamp(0, 1)
    for style, rows in _groups(attributes, "style", styles.STYLES):
        image[rows] = style(image[rows])
    if looks is not None and len(rows := _given(looks)):
        image[rows] = restyle(image[rows], looks[rows])

    u, v = keypoints(sitter).unbind(-1)
    cos, sin = roll.cos()[:, 0], roll.sin()[:, 0]
    px = (cos * u - sin * v) * scale[:, 0] + x[:, 0]
    py = (sin * u + cos * v) * scale[:, 0] + y[:, 0]
    pixels = (torch.stack([px, py], -1) + 1) / 2 * SIZE - 0.5
    return image.clamp(0, 1), pixels
