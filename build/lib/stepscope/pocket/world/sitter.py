"""The person who sits: identity, expression, pose and light as the numbers that painters use."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stepscope.pocket.world.canvas import Rows
from stepscope.pocket.world.palette import CLOTH, HAIR, IRIS, SKIN, ramp
from stepscope.pocket.world.vocabulary import ATTRIBUTES, IDENTITY, NUISANCE

# The tint of each scene's light, in the order of ATTRIBUTES["scene"].
TINT = (
    (1, 1, 1),
    (1.04, 1.0, 0.95),
    (1, 1, 1),
    (0.97, 1.01, 0.95),
    (0.86, 0.86, 0.98),
    (0.98, 1, 1.04),
)
# Head size and height in the image, in the order of ATTRIBUTES["shot"].
HEAD_SCALE = (0.66, 0.57, 0.49)
HEAD_HEIGHT = (-0.10, -0.20, -0.29)


@dataclass
class Sitter(Rows):
    """Numbers (n, 1, 1) in head units (a head is about 2 high) and colours (n, 3, 1, 1).

    The head's origin is between the eyes, a little above; x to the viewer's right, y down.
    """

    skin: Tensor
    hair: Tensor
    iris: Tensor
    cloth: Tensor
    tint: Tensor
    light_x: Tensor
    light_y: Tensor
    exposure: Tensor
    yaw: Tensor
    trim: Tensor
    # The head.
    width: Tensor
    jaw: Tensor
    chin: Tensor
    ear: Tensor
    # The features.
    eye_x: Tensor
    eye_y: Tensor
    eye_rx: Tensor
    eye_ry: Tensor
    eye_tilt: Tensor
    brow_y: Tensor
    brow_thickness: Tensor
    brow_tilt: Tensor
    nose_y: Tensor
    nose_width: Tensor
    mouth_y: Tensor
    mouth_width: Tensor
    mouth_bend: Tensor
    lips: Tensor
    smiling: Tensor
    surprised: Tensor
    # Hair and marks.
    hair_length: Tensor
    hair_volume: Tensor
    fringe: Tensor
    parting: Tensor
    beard: Tensor
    mole: Tensor


def _table(values: tuple, column: Tensor) -> Tensor:
    """Look a constant up by attribute index: (n, 1, 1), or (n, 3, 1, 1) for colours."""
    found = torch.tensor(values, device=column.device, dtype=torch.float32)[column]
    return found[..., None, None]


def pose(attributes: Tensor, nuisance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the head is: centre x and y, scale, roll (radians), each (n, 1, 1)."""
    drift = {name: nuisance[:, i, None, None] for i, name in enumerate(NUISANCE)}
    shot = attributes[:, list(ATTRIBUTES).index("shot")]
    scale = _table(HEAD_SCALE, shot) * (1 + 0.04 * drift["zoom"])
    x = 0.06 * drift["shift_x"]
    y = _table(HEAD_HEIGHT, shot) + 0.03 * drift["shift_y"]
    return x, y, scale, 0.09 * drift["roll"]


def sit(identity: Tensor, attributes: Tensor, nuisance: Tensor) -> Sitter:
    """The sitter of each row."""
    face = {name: identity[:, i, None, None] for i, name in enumerate(IDENTITY)}
    drift = {name: nuisance[:, i, None, None] for i, name in enumerate(NUISANCE)}
    chosen = {name: attributes[:, i] for i, name in enumerate(ATTRIBUTES)}

    def is_(key: str, value: str) -> Tensor:
        return (chosen[key] == ATTRIBUTES[key].index(value)).float()[:, None, None]

    smiling, surprised = is_("expression", "smiling"), is_("expression", "surprised")
    eye_rx = 0.145 + 0.095 * face["eye_size"]
    eye_ry = eye_rx * 0.78 * (1 + 0.22 * surprised - 0.14 * smiling)
    mouth_width = (0.17 + 0.25 * face["mouth_width"]) * (1 + 0.15 * smiling - 0.25 * surprised)
    return Sitter(
        skin=ramp(SKIN, face["skin"]),
        hair=ramp(HAIR, face["hair_colour"]),
        iris=ramp(IRIS, face["iris"]),
        cloth=_table(CLOTH, chosen["colour"]),
        tint=_table(TINT, chosen["scene"]),
        light_x=0.8 * drift["light_x"],
        light_y=-0.45 + 0.25 * drift["light_y"],
        exposure=1 + 0.05 * drift["exposure"],
        yaw=drift["yaw"],
        trim=(drift["trim"] + 1) / 2,
        width=0.78 + 0.22 * face["width"],
        jaw=1.7 + 1.9 * face["jaw"],
        chin=0.92 + 0.26 * face["chin"],
        ear=0.10 + 0.27 * face["ears"],
        eye_x=0.30 + 0.16 * face["eye_gap"],
        eye_y=torch.full_like(smiling, 0.06),
        eye_rx=eye_rx,
        eye_ry=eye_ry,
        eye_tilt=(face["eye_tilt"] - 0.5) * 1.15,
        brow_y=-0.09 - eye_rx * 0.78 - 0.08 * surprised,
        brow_thickness=0.028 + 0.075 * face["brow_thickness"],
        brow_tilt=(face["brow_tilt"] - 0.5) * 0.95,
        nose_y=0.24 + 0.22 * face["nose_length"],
        nose_width=0.07 + 0.20 * face["nose_width"],
        mouth_y=0.69 + 0.03 * smiling + 0.02 * surprised,
        mouth_width=mouth_width,
        mouth_bend=-0.10 - 0.75 * smiling,
        lips=0.020 + 0.115 * face["lips"],
        smiling=smiling,
        surprised=surprised,
        hair_length=face["hair_length"],
        hair_volume=face["hair_volume"],
        fringe=face["fringe"],
        parting=(face["parting"] - 0.5) * 2,
        beard=face["beard"],
        mole=face["mole"],
    )


# How far the features slide over the head when it turns by a full yaw.
FACE_TURN, NOSE_TURN = 0.09, 0.15


def keypoints(sitter: Sitter) -> Tensor:
    """Left eye, right eye, nose, mouth corners as the viewer sees them: (n, 5, 2), head units."""
    s = sitter
    turn = FACE_TURN * s.yaw
    corner = s.mouth_width * 0.95
    open_y, closed_y = s.mouth_y, s.mouth_y + s.mouth_bend * corner**2
    corner_y = torch.lerp(closed_y, open_y, s.surprised)
    points = [
        (turn - s.eye_x, s.eye_y),
        (turn + s.eye_x, s.eye_y),
        (NOSE_TURN * s.yaw, s.nose_y),
        (turn - corner, corner_y),
        (turn + corner, corner_y),
    ]
    return torch.stack([torch.stack([x.flatten(), y.flatten()], -1) for x, y in points], 1)
