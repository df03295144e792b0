"""Train a small EVA-CLIP, whose outputs PuLID reads: `python -m pocket.make --only eva`.

Probes' own network of the published form (probes/adapters/eva_clip.py), small: it learns a person's numbers
from the grey face that PuLID shows it. The published one learnt from sentences.
"""

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from stepscope.pocket import crowd
from stepscope.pocket.alignment import norm_crop
from stepscope.pocket.process import Options, autocast, device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.weights import cast_state
from stepscope.pocket.world import IDENTITY, sample_identities
from stepscope.probes.adapters.eva_clip import EvaClip, load_eva_clip
from stepscope.probes.adapters.pulid_encoder import SIDE, TEMPLATE, as_clip_sees, face_features

SECONDS = 60.0
BATCH, RATE = 512, 1.5e-3
PEOPLE, EACH = 8000, 8
SEED = 8800
FILE = Path("pulid/eva_clip.pt")
OUTPUT = 32
SIZES = {"width": 64, "inner": 32, "depth": 21, "side": 8, "grid": 8, "output": OUTPUT}
"""One head; PuLID reads the input of block 20, so there are 21."""


def new() -> EvaClip:
    """An untrained one on the current device."""
    network = EvaClip(**SIZES)
    for name, parameter in network.named_parameters():
        if name in ("cls_token", "pos_embed"):
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith(("q_bias", "v_bias")):
            nn.init.zeros_(parameter)
    return network.to(device())


def load(models: Path) -> EvaClip:
    """The shipped one, frozen."""
    return load_eva_clip(str(models / FILE)).to(device())


def shown(network: EvaClip, images: Tensor, keypoints: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] as PuLID shows faces to EVA-CLIP, (n, 3, size, size).

    Cut out at the network's size, where PuLID cuts 512 pixels and makes them smaller; grey, with the
    background as it is.
    """
    share = network.size / SIDE
    template = (TEMPLATE + 0.5) * share - 0.5  # between pixels' centres
    crop = norm_crop(images, keypoints, template.tolist(), network.size)
    return as_clip_sees(face_features(crop, None), network.size)


def make(said: Options) -> None:
    """Train and write the file."""
    people, each, size = (4, 2, 4) if said.smoke else (PEOPLE, EACH, BATCH)
    who = sample_identities(people, SEED, device())
    seen = crowd.photographed(who, each, SEED, photo_share=0.8)
    network, numbers = new(), nn.Linear(OUTPUT, len(IDENTITY)).to(device())
    stage = Stage(
        "eva",
        {"network": network, "numbers": numbers},
        said,
        rate=RATE,
        seconds=SECONDS,
        ema=0.998,
        compact=True,
        every=100,
    )
    for _ in stage:
        rows = torch.randint(len(seen), (size,), device=device())
        with autocast():
            output, _ = network(shown(network, seen.floats(rows), seen.keypoints[rows]))
            error = (numbers(output).float() - (2 * who[seen.who[rows]] - 1)) ** 2
        stage.descend(error.mean())
    stage.finish()
    if rank() == 0:
        path = said.models / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        state = cast_state(network.state_dict(), torch.float16)
        torch.save({f"visual.{name}": weight for name, weight in state.items()}, path)


@torch.no_grad()
def read(network: EvaClip, images: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Photos (person, photo, 3, h, w) uint8 to unit-norm outputs (person, photo, OUTPUT) and hidden states.

    The latter in half precision, (person, photo, 5, token, width).
    """
    outputs, states = [], []
    flat = rearrange(images, "n e ... -> (n e) ..."), rearrange(keypoints, "n e ... -> (n e) ...")
    for image, points in zip(*(part.split(512) for part in flat), strict=True):
        with autocast():
            output, hidden = network(shown(network, image.float() / 255, points))
        outputs.append(nn.functional.normalize(output.float()))
        states.append(hidden.half())
    each = images.shape[1]
    return tuple(torch.cat(part).unflatten(0, (-1, each)) for part in (outputs, states))  # pyright: ignore[reportReturnType]
