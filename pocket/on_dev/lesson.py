"""How an adapter learns a face on frozen dev: the two losses of adapter.py, and walks.py, for any adapter.

A pupil says what it reads of a row's reference and what dev's velocity is with that; neither the judge nor
schnell is ever seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

from stepscope.pocket import album, critic, folders
from stepscope.pocket.adapter import FADE_FROM, FADE_TO
from stepscope.pocket.muon import Muon, by_shape
from stepscope.pocket.process import Options
from stepscope.pocket.training import Stage
from stepscope.pocket.walks import OWN_DONE, Velocity, states

BATCH, RATE, MUON = 256, 1e-3, 3.0
# As adapter.py's, twice: these have fewer steps to find the face in.
LIKENESS_FROM, LIKENESS_TO = 0.6, 0.2
DROPPED = 0.05


@dataclass(frozen=True)
class Pupil:
    """What learns.

    modules: whose weights do. shelf: what it is shown. identity: rows of that to tokens that the velocity
    reads, (b, token, channel). velocity: as flow.velocity, with those tokens last.
    """

    name: str
    modules: Mapping[str, nn.Module]
    shelf: album.Album
    identity: Callable[[Tensor], Tensor]
    velocity: Velocity


def dev_alone(said: Options) -> FluxTransformer2DModel:
    """Shipped dev, not compiled: an adapter changes what its blocks run."""
    return folders.load_dev(said.models, fast=False)


def learn(said: Options, pupil: Pupil, seconds: float) -> None:
    """Train the pupil's modules; afterwards they hold their averages."""
    shelf, words = pupil.shelf, folders.load_text(said.models)
    eye = critic.load(said)
    stage = Stage(
        pupil.name,
        pupil.modules,
        said,
        rate=RATE,
        seconds=seconds,
        ema=0.995,
        compact=True,
        every=50,
    )
    wide, others = by_shape(stage.parameters)
    if others:  # a LoRA is matrices alone, and keeps AdamW
        stage.optimiser = Muon(wide, others, RATE, ratio=MUON)
    size = 4 if said.smoke else BATCH
    for progress in stage:
        batch = shelf.draw(size, dropped=DROPPED)
        told = words(batch.clip_ids, batch.t5_ids)
        identity = pupil.identity(batch.rows)
        x, sigma, guidance, own = states(
            pupil.velocity, batch, told, identity, 1 + stage.step % OWN_DONE
        )
        found = pupil.velocity(x, sigma, told, guidance, identity)
        error = ((found - (batch.noise - batch.clean)) ** 2 * shelf.face_weight(batch.rows))[own:]
        face = shelf.portraits[batch.rows // album.RENDERS]
        like = (eye(x - sigma[:, None, None] * found) * face).sum(-1)
        sharp = ((FADE_TO - sigma) / (FADE_TO - FADE_FROM)).clamp(0, 1)
        weight = LIKENESS_FROM + progress * (LIKENESS_TO - LIKENESS_FROM)
        stage.descend(
            error.mean() + weight * (sharp * (1 - like)).mean(),
            flow=error.mean(),
            like=(like[own:] * sharp[own:]).sum() / sharp[own:].sum().clamp(min=1e-6),
            like_own=like[:own].mean(),
        )
    stage.finish()
